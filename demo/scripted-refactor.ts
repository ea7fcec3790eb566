import { command, firstLine, type Progress, type Step } from './scripted-conversation.ts'

const newModule = `import { splitBill } from './split-bill.js'

/**
 * @param {string[]} words an amount and who pays: \`['100.00', 'Ada', 'Grace']\`
 * @returns {{ cents: number, people: string[] } | undefined} undefined when that is no bill
 */
export function parseBill([amount, ...people]) {
  if (!/^\\d+(\\.\\d{1,2})?$/.test(amount ?? '') || people.length === 0) return undefined
  return { cents: Math.round(Number(amount) * 100), people }
}

/** One line per person, the amounts below one another. */
export function formatShares({ cents, people }) {
  const width = Math.max(...people.map((name) => name.length))
  return splitBill(cents, people)
    .map((share) => \`\${share.name.padEnd(width)}  \${(share.cents / 100).toFixed(2)}\`)
    .join('\\n')
}
`

const newTest = `import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatShares, parseBill } from '../src/bill-text.js'

test('a bill is an amount and at least one name', () => {
  assert.deepEqual(parseBill(['12.5', 'Ada']), { cents: 1250, people: ['Ada'] })
  for (const words of [[], ['12'], ['x', 'Ada'], ['1.234', 'Ada']]) assert.equal(parseBill(words), undefined)
})

test('the amounts of long and short names stand below one another', () => {
  assert.equal(formatShares({ cents: 900, people: ['Ada', 'Margaret'] }), 'Ada       4.50\\nMargaret  4.50')
})
`

const newMain = `import { formatShares, parseBill } from './bill-text.js'

const bill = parseBill(process.argv.slice(2))
if (!bill) {
  console.error('Usage: npm start -- AMOUNT NAME…')
  process.exit(2)
}
console.log(formatShares(bill))
`

const newInteractive = `import { createInterface } from 'node:readline'
import { formatShares, parseBill } from './bill-text.js'

console.log('One bill per line: AMOUNT NAME… (quit ends)')
for await (const line of createInterface({ input: process.stdin })) {
  const words = line.trim().split(/\\s+/)
  if (words[0] === 'quit') break
  const bill = parseBill(words)
  console.log(bill ? formatShares(bill) : 'That is no bill.')
}
`

const plan = ['Read both programs', 'Move what they share into src/bill-text.js', 'Compare what they print', 'Commit']
const bothPrograms = `node src/main.js 90.00 Ada Grace Linus; printf '12.50 Ada Margaret\\nquit\\n' | node src/interactive.js`
const commitCommand = 'git add --all && git commit --message "Move what both programs share into one module"'

/** Task `refactor`: several files at once, proven by what the programs print before and after. */
const steps: ((progress: Progress) => Step)[] = [
  () => ({ text: 'I plan first.', call: todo(0) }),
  () => ({
    text: 'Now I read what there is.',
    call: { tool: 'read_files', input: { files: [{ path: 'src/main.js' }, { path: 'src/interactive.js' }] } },
  }),
  () => ({
    text: 'Both check and print a bill in the same way. Before I change that, I see what they print.',
    call: command(bothPrograms),
  }),
  () => ({
    text: 'I move it into `src/bill-text.js`, with a test of its own, and use it in both.',
    call: {
      tool: 'edit_files',
      input: {
        edits: [
          { type: 'create', path: 'src/bill-text.js', content: newModule },
          { type: 'create', path: 'test/bill-text.test.js', content: newTest },
          { type: 'create', path: 'src/main.js', content: newMain, overwrite: true },
          { type: 'create', path: 'src/interactive.js', content: newInteractive, overwrite: true },
        ],
      },
    },
  }),
  () => ({ text: 'The new tests.', call: command('node --test test/bill-text.test.js') }),
  () => ({ text: 'They pass. Do both programs still print the same?', call: command(bothPrograms) }),
  ({ results }) =>
    results[2]?.text === results[5]?.text
      ? { text: 'They do, to the letter. I commit.', call: command(commitCommand) }
      : { text: 'They print something else now. I leave the change uncommitted, so that you can look at it.' },
  () => ({ text: 'That was the last step.', call: todo(plan.length) }),
  () => ({
    text:
      'Done. `src/main.js` and `src/interactive.js` had the same code for reading a bill and printing its shares; it is in ' +
      '`src/bill-text.js` now, with tests. Both programs print what they printed before, and the change is committed.',
  }),
]

export function refactorStep(progress: Progress): Step {
  const last = progress.results.at(-1)
  if (last?.isError) return { text: `That did not work: ${firstLine(last.text)}. I stop here.` }
  const step = steps[progress.results.length] ?? steps.at(-1)
  return step ? step(progress) : { text: 'There is nothing left to do.' }
}

function todo(done: number): Step['call'] {
  const status = (index: number) => (index < done ? 'completed' : index === done ? 'in_progress' : 'pending')
  return { tool: 'todo', input: { todos: plan.map((title, index) => ({ title, status: status(index) })) } }
}
