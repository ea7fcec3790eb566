/**
 * Splits a bill so that everybody pays whole cents and nobody pays more than one cent more than anybody else.
 *
 * @param {number} cents what the bill comes to
 * @param {string[]} people who pays, in order
 * @returns {{ name: string, cents: number }[]}
 */
export function splitBill(cents, people) {
  if (people.length === 0) throw new Error('Nobody is there to pay.')
  const share = Math.floor(cents / people.length)
  return people.map((name) => ({ name, cents: share }))
}
