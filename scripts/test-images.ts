import { imageProblem, prepareArchive, type TestImage } from '../test/support/test-images.ts'

/**
 * Makes the archives of images that tests of the Docker backend use, as far as they are not kept yet: `node scripts/test-images.ts [IMAGE …]`. Tests make
 * what they lack themselves; this is for doing it beside something else, as those of distributions take half a minute and more.
 */

const wanted =
  process.argv.length > 2 ? (process.argv.slice(2) as TestImage[]) : (['debian', 'musl', 'static'] as const)
for (const image of wanted) {
  const problem = imageProblem(image)
  if (problem === undefined) console.log(`${image}: ${await prepareArchive(image)}`)
  else console.log(`${image}: ${problem}`)
}
