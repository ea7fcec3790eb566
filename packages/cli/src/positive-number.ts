import { InvalidArgumentError } from 'commander'

/** What reads an option's value: more than 0, with at most three digits behind a point. */
export function positiveNumber({ to }: { to: number }): (value: string) => number {
  return (value) => {
    if (/^\d{1,9}(\.\d{1,3})?$/.test(value) && Number(value) > 0 && Number(value) <= to) return Number(value)
    throw new InvalidArgumentError(`It is a number above 0, and ${to} at most.`)
  }
}
