import { InvalidArgumentError } from 'commander'

/** What reads an option's value: digits and nothing else. By default as many as a sequence number has at the most. */
export function wholeNumber({ from = 0, to = 999_999_999_999_999 } = {}): (value: string) => number {
  return (value) => {
    if (/^\d{1,15}$/.test(value) && Number(value) >= from && Number(value) <= to) return Number(value)
    throw new InvalidArgumentError(`It is a whole number from ${from} to ${to}.`)
  }
}
