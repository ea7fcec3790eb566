#!/usr/bin/env node
import { printVersion } from './print-version.mjs'

if (!printVersion()) {
  const { start } = await import('./node-runtime.mjs')
  await start({ self: import.meta.url, loadSource: () => import('../src/oz.ts'), bundle: 'oz.mjs' })
}
