import { expect, test } from 'vitest'
import { read } from './documents.ts'

/** Bases of others run as somebody and start something. What is built of the recipes: `test/docker/images.test.ts`. */
const recipe = (name: string) => read(`images/${name}/Dockerfile`)

test.each(['server', 'worker', 'agent'])('the %s image is made as root, whoever its base runs as', (name) => {
  const instructions = recipe(name).replaceAll(/^#.*\n/gm, '')
  expect(instructions).toMatch(/^FROM \$\{BASE\}\nUSER root\n/m)
})

test('nothing of the base starts what the agent image is told to start', () => {
  expect(recipe('agent')).toMatch(/^ENTRYPOINT \[\]\n(#.*\n)*CMD /m)
})
