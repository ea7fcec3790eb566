import { startRoundTrip } from '/work/main/test/support/workspace-round-trip.ts'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
using trip = startRoundTrip()
for (const kind of ['repo', 'loose']) {
  const sources = kind === 'repo' ? [{ url: `file://${trip.origin}`, dir: 'origin' }] : []
  const ws = await trip.begin(sources)
  const base = kind === 'repo' ? join(ws.folder, 'origin') : ws.folder
  for (let i = 0; i < 1000; i++) { mkdirSync(join(base, `d${i}`)); for (let j = 0; j < 100; j++) writeFileSync(join(base, `d${i}`, `f${j}`), `${i} ${j}`) }
  let t = performance.now()
  const saved = await trip.save(ws, 100e6)
  console.log(kind, 'save', Math.round(performance.now() - t), saved.leftOut.slice(0,3), saved.repositories.map(r => r.files_changed))
  t = performance.now()
  const r = await trip.restore(saved, sources)
  console.log(kind, 'restore', Math.round(performance.now() - t), r.notes)
}
