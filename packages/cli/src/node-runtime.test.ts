import { expect, test } from 'vitest'

/** Plain JavaScript, without types. */
interface NodeRuntime {
  nodeProgram: (platform: NodeJS.Platform) => string
}

test('on Windows the newer Node is the one that is a program', async () => {
  const { nodeProgram } = (await import(new URL('../bin/node-runtime.mjs', import.meta.url).href)) as NodeRuntime
  expect([nodeProgram('win32'), nodeProgram('linux'), nodeProgram('darwin')]).toEqual(['node.exe', 'node', 'node'])
})
