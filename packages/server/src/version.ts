/** One version for all programs of a release; `scripts/build.ts` checks that the package.json files agree. */
export const version = '0.1.0'
