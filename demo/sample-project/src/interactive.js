import { createInterface } from 'node:readline'
import { splitBill } from './split-bill.js'

console.log('One bill per line: AMOUNT NAME… (quit ends)')
for await (const line of createInterface({ input: process.stdin })) {
  const [amount, ...people] = line.trim().split(/\s+/)
  if (amount === 'quit') break
  if (!/^\d+(\.\d{1,2})?$/.test(amount ?? '') || people.length === 0) {
    console.log('That is no bill.')
    continue
  }
  const width = Math.max(...people.map((name) => name.length))
  for (const { name, cents } of splitBill(Math.round(Number(amount) * 100), people)) {
    console.log(`${name.padEnd(width)}  ${(cents / 100).toFixed(2)}`)
  }
}
