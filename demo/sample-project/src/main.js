import { splitBill } from './split-bill.js'

const [amount, ...people] = process.argv.slice(2)
if (!/^\d+(\.\d{1,2})?$/.test(amount ?? '') || people.length === 0) {
  console.error('Usage: npm start -- AMOUNT NAME…')
  process.exit(2)
}

const width = Math.max(...people.map((name) => name.length))
for (const { name, cents } of splitBill(Math.round(Number(amount) * 100), people)) {
  console.log(`${name.padEnd(width)}  ${(cents / 100).toFixed(2)}`)
}
