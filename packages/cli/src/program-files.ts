import { fileURLToPath } from 'node:url'

/** From sources the programs are in `bin/`; in a bundle they lie beside all its files. */
const folder = import.meta.url.endsWith('.ts') ? '../bin/' : './'

/** To be started with `process.execPath`, which is new enough by then. */
export const workerProgram = fileURLToPath(new URL(`${folder}oz-agent-worker.mjs`, import.meta.url))

/** Executable by itself: what a worker starts as `oz`. */
export const ozProgram = fileURLToPath(new URL(`${folder}oz.mjs`, import.meta.url))
