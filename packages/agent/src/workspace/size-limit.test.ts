import { expect, test } from 'vitest'
import { chooseLeftOut } from './size-limit.ts'

const chosen = (files: Record<string, number>, room: number) => {
  const all = Object.entries(files).map(([path, bytes]) => ({ path, bytes }))
  const left = chooseLeftOut(all, room)
  const isLeft = (path: string) => left.some((one) => path === one.path || path.startsWith(`${one.path}/`))
  const rest = all.filter(({ path }) => !isLeft(path))
  expect(rest.reduce((sum, { bytes }) => sum + bytes, 0)).toBeLessThanOrEqual(room)
  return left
}

test('what fits stays', () => {
  expect(chosen({ 'a.txt': 10, 'b/c.txt': 40 }, 100)).toEqual([])
})

test('a single file of more than half of the room goes, the rest stays', () => {
  expect(chosen({ 'a.txt': 10, 'dump.sql': 60 }, 100)).toEqual([{ path: 'dump.sql', bytes: 60, files: 0 }])
})

test('installed packages go as one folder, and the sources beside them stay', () => {
  const files: Record<string, number> = { 'app/src/main.ts': 5, 'app/src/other.ts': 3, 'notes.md': 1 }
  for (let i = 0; i < 500; i++) files[`app/node_modules/package-${i}/index.js`] = 1
  expect(chosen(files, 100)).toEqual([{ path: 'app/node_modules', bytes: 500, files: 500 }])
})

test('several large things in several places go one by one', () => {
  const left = chosen({ 'a/data.bin': 40, 'b/data.bin': 40, 'c/data.bin': 40, 'a/work.txt': 2, 'b/work.txt': 2 }, 50)
  expect(left.map(({ path }) => path).sort()).not.toContain('a/work.txt')
  expect(left.every(({ path }) => path.endsWith('data.bin') || path === 'c')).toBe(true)
})

test('a hundred thousand files are looked at once', () => {
  const files: Record<string, number> = {}
  for (let i = 0; i < 100_000; i++) files[`data/${i % 100}/file-${i}`] = 10
  const startedAt = performance.now()
  expect(chosen(files, 500_000).length).toBeGreaterThan(0)
  expect(performance.now() - startedAt).toBeLessThan(10_000)
})
