import { command, firstLine, type Progress, type Step, testCounts } from './scripted-conversation.ts'
import { afterEdit, repair, testCommand } from './scripted-fix.ts'

const question = `When a bill does not divide evenly, some cents are left over. Who pays them?

1. to the first people who pay, one cent each
2. to the last people who pay, one cent each`

const repairedLines = {
  first: `  const share = Math.floor(cents / people.length)
  const leftOver = cents - share * people.length
  return people.map((name, index) => ({ name, cents: index < leftOver ? share + 1 : share }))`,
  last: `  const share = Math.floor(cents / people.length)
  const firstWithMore = people.length - (cents - share * people.length)
  return people.map((name, index) => ({ name, cents: index < firstWithMore ? share : share + 1 }))`,
}

/** Task `question`: a decision that only a person can take. The turn ends with it; the answer is the next turn's message. */
export function questionStep({ results, said }: Progress): Step {
  const last = results.at(-1)
  if (!last) return { text: 'I run the tests first, to see what fails.', call: command(testCommand) }
  if (!results.some(({ tool }) => tool === 'ask')) {
    return {
      text: `The tests fail${testCounts(last.text)}: cents that are left over are lost. Who pays them is not for me to decide.`,
      call: { tool: 'ask', input: { question } },
    }
  }
  const who = said.map((text) => /\b(first|last) people\b/i.exec(text)?.[1]?.toLowerCase()).findLast(Boolean)
  if (who !== 'first' && who !== 'last') return { text: 'I need to know: the first people, or the last people?' }
  if (last.tool === 'ask') return { text: `The ${who} people, then.`, call: repair(repairedLines[who]) }
  if (last.tool === 'edit_files') return afterEdit(last)
  if (last.input.includes('git commit')) {
    if (last.isError) return { text: `Git refused to commit it: ${firstLine(last.text)}. It is in the working tree.` }
    return {
      text: `Done. Left-over cents go to the ${who} people who pay, as you said; all tests pass, and it is committed.`,
    }
  }
  if (last.isError) return { text: 'The tests still fail after my change. I leave it uncommitted.' }
  const message = `Give left-over cents to the ${who} people who pay`
  return {
    text: `All tests pass now${testCounts(last.text)}. I commit the change.`,
    call: command(`git add --all && git commit --message "${message}"`),
  }
}
