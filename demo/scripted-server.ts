import { firstLine, type Progress, type Step } from './scripted-conversation.ts'

const bill = '100.00 Ada Grace Linus'
const people = 3

/** A program that says nothing for this many reads has nothing to say. */
const maxReads = 5

/** Task `server`: a program that runs in the background, is written to, read and stopped. */
export function serverStep({ results }: Progress): Step {
  const [start] = results
  const last = results.at(-1)
  if (!start || !last) {
    return {
      text: 'I start it in the background, so that I can talk to it.',
      call: { tool: 'run_command', input: { command: 'node src/interactive.js', background: true } },
    }
  }
  const { commandId } = start
  if (commandId === undefined) return { text: `It did not start: ${firstLine(start.text)}. I stop here.` }
  if (last.tool === 'stop_command') return { text: verdict(sharesIn(results)) }
  if (last.isError) return { text: `That did not work: ${firstLine(last.text)}. I stop here.` }
  if (!results.some(({ tool }) => tool === 'write_to_command')) {
    return {
      text: 'It runs. I give it a bill that does not divide evenly.',
      call: { tool: 'write_to_command', input: { command_id: commandId, input: `${bill}\n` } },
    }
  }
  const reads = results.filter(({ tool }) => tool === 'read_command').length
  if (sharesIn(results).length < people && reads < maxReads)
    return { text: 'I wait for its answer.', call: { tool: 'read_command', input: { command_id: commandId } } }
  return { text: 'That is all I need; I stop it.', call: { tool: 'stop_command', input: { command_id: commandId } } }
}

function sharesIn(results: Progress['results']): number[] {
  const output = results.map(({ text }) => text).join('')
  return [...output.matchAll(/^\w+ +(\d+\.\d\d)$/gm)].map(([, amount]) => Math.round(Number(amount) * 100))
}

function verdict(shares: number[]): string {
  if (shares.length < people) return 'It answered nothing that I can read, and is stopped. I changed nothing.'
  const total = (shares.reduce((sum, cents) => sum + cents, 0) / 100).toFixed(2)
  const words = total === '100.00' ? 'They add up.' : `They add up to ${total}: a cent is lost.`
  return `It split ${bill.split(' ')[0]} into ${shares.map((cents) => (cents / 100).toFixed(2)).join(', ')}. ${words} It is stopped, and I changed nothing.`
}
