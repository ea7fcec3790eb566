import { expect, test } from 'vitest'
import { readMigrations } from '../../packages/server/src/store/migrate.ts'

/**
 * SHA-256 of every migration. One that was released is never changed: databases that ran it refuse the new text. Until its first release a
 * migration may change, and its line here with it.
 */
const hashes: Record<string, string> = {
  '0001_initial.sql': '7628c6976a73afbb2db90c289dce65785161dc708a268cc751d39dcb791c04e0',
  '0002_turns_and_usage.sql': 'f50fe1a0fed3fd6f82b0ad5df80afcd2351d372517048edc6b86825ccb720954',
  '0003_front_doors.sql': '0038ed9cc28102c47946e78f7f4da09a065b844951425f44ca68bf03380f4649',
  '0004_ownership.sql': 'eaf806ef2f053f09957ffcce5e0cfbf2c135db4c6cd7fbe8aab18f07bac10e6e',
  '0005_join_tokens.sql': '30130533e02a50466a0bfb637658bd50bbfddcf555c69f858fce765a1ced78d4',
}

test('migrations are numbered from 1 without gaps', async () => {
  const migrations = await readMigrations()
  expect(migrations.map(({ version }) => version)).toEqual(migrations.map((_, index) => index + 1))
})

test('no migration differs from its hash, and none lacks one', async () => {
  const found = Object.fromEntries((await readMigrations()).map(({ name, hash }) => [name, hash]))
  expect(found).toEqual(hashes)
})
