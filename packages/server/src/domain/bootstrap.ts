import { AppError } from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import { insertApiKey } from '../store/api-keys.ts'
import { findInstallation, insertInstallation, lockBootstrap } from '../store/control-plane.ts'
import type { Database, Tx } from '../store/database.ts'
import { findFirstOwner, insertMember, insertTeam, insertUser } from '../store/people.ts'
import { hashSecret } from './actors.ts'

/** The first start creates this person; signing in and renaming come from there. */
const firstOwner = { name: 'Owner', email: 'owner@localhost.invalid' }

/**
 * Makes a new database usable: installation, owner, the team `default`, the first key. On one that is in use it checks the master key and adds
 * the given key if it is not there yet. Two servers that start on one new database do it one after the other.
 */
export async function bootstrap(
  db: Database,
  secrets: { masterKeyCheck: Buffer; masterKeyFile: string; adminApiKey: string },
): Promise<{ isFirstStart: boolean }> {
  return db.transaction(async (tx) => {
    await lockBootstrap(tx)
    const installation = await findInstallation(tx)
    if (installation && !installation.masterKeyCheck.equals(secrets.masterKeyCheck))
      throw new AppError('master_key_mismatch', { file: secrets.masterKeyFile })
    if (!installation) await insertInstallation(tx, { id: uuidv7(), masterKeyCheck: secrets.masterKeyCheck })

    const owner = (await findFirstOwner(tx)) ?? (await createFirstOwner(tx))
    await insertApiKey(tx, {
      id: uuidv7(),
      teamId: owner.teamId,
      userId: owner.userId,
      name: 'admin',
      scope: 'user',
      workerId: null,
      keyHash: hashSecret(secrets.adminApiKey),
      keySuffix: secrets.adminApiKey.slice(-4),
      expiresAt: null,
    })
    return { isFirstStart: !installation }
  })
}

async function createFirstOwner(tx: Tx): Promise<{ userId: string; teamId: string }> {
  const userId = uuidv7()
  const teamId = uuidv7()
  await insertUser(tx, { id: userId, ...firstOwner })
  await insertTeam(tx, { id: teamId, name: 'default', slug: 'default' })
  await insertMember(tx, { id: uuidv7(), teamId, userId, role: 'owner' })
  return { userId, teamId }
}
