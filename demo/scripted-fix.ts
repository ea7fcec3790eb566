import { command, firstLine, type Progress, type Step, type ToolResult, testCounts } from './scripted-conversation.ts'

export const testCommand = 'node --test'
const commitCommand = 'git add --all && git commit --message "Give left-over cents to the first people who pay"'

const brokenLines = `  const share = Math.floor(cents / people.length)
  return people.map((name) => ({ name, cents: share }))`

const repairedLines = `  const share = Math.floor(cents / people.length)
  const leftOver = cents - share * people.length
  return people.map((name, index) => ({ name, cents: index < leftOver ? share + 1 : share }))`

/** Task `fix`: run the tests, repair what fails, run them again, commit. */
export function fixStep({ results }: Progress): Step {
  const last = results.at(-1)
  if (!last) return { text: 'I run the tests first, to see what fails.', call: command(testCommand) }
  if (last.tool === 'edit_files') return afterEdit(last)
  if (last.input.includes('git commit')) return afterCommit(last)
  if (last.input.includes(testCommand)) return afterTest(last, results)
  return { text: 'I did not ask for that, and I only know this one sample project, so I stop here.' }
}

function afterTest(result: ToolResult, results: ToolResult[]): Step {
  const hasEdited = results.some(({ tool, isError }) => tool === 'edit_files' && !isError)
  const counts = testCounts(result.text)
  if (result.isError && !/not ok|✖|fail/i.test(result.text)) {
    return { text: `The tests could not be run at all: ${firstLine(result.text)}. I stop here; nothing was committed.` }
  }
  if (!hasEdited) {
    if (!result.isError)
      return { text: `All tests pass already${counts}. There is nothing to do, and I changed nothing.` }
    return {
      text:
        `The tests fail${counts}: the shares do not add up to the bill. \`splitBill\` rounds every share down and forgets the cents ` +
        'that are left over. I give one of them to each of the first people until none is left.',
      call: repair(repairedLines),
    }
  }
  if (result.isError) {
    return {
      text:
        `The tests still fail after my change${counts}, and I know no other repair. I leave the change uncommitted, so that you ` +
        'can look at it.',
    }
  }
  return { text: `All tests pass now${counts}. I commit the change.`, call: command(commitCommand) }
}

/** The call that replaces the broken lines. */
export function repair(lines: string): Step['call'] {
  const edit = { type: 'replace', path: 'src/split-bill.js', old_text: brokenLines, new_text: lines }
  return { tool: 'edit_files', input: { edits: [edit] } }
}

export function afterEdit(result: ToolResult): Step {
  if (result.isError) {
    return {
      text: `I could not change src/split-bill.js: ${firstLine(result.text)}. It is not the file that I know, so I stop here.`,
    }
  }
  return { text: 'Now the tests again.', call: command(testCommand) }
}

function afterCommit(result: ToolResult): Step {
  if (result.isError) {
    return {
      text: `The change works, but git refused to commit it: ${firstLine(result.text)}. It is in the working tree.`,
    }
  }
  return {
    text:
      'Done. `splitBill` lost the cents that do not divide evenly: 100.00 among three came to 99.99. They now go to the first ' +
      'people who pay, one cent each, so the shares add up to the bill and nobody pays more than one cent more than anybody else. ' +
      'All tests pass, and the change is committed.',
  }
}
