import { z } from 'zod'

/** `user`: its owner's rights. `team`: the team's, without a person. `worker`: connect as one worker id, nothing else. */
export const apiKeyScopes = ['user', 'team', 'worker'] as const
export type ApiKeyScope = (typeof apiKeyScopes)[number]

export const apiKeyItem = z
  .object({
    uid: z.uuid(),
    name: z.string(),
    scope: z.enum(apiKeyScopes),
    /** The last four characters, to tell keys apart. */
    key_suffix: z.string(),
    /** The only worker id that a worker key may connect as; null: it is no worker key. */
    worker_id: z.string().nullable(),
    created_at: z.string(),
    last_used_at: z.string().nullable(),
    expires_at: z.string().nullable(),
  })
  .meta({ id: 'ApiKey' })
export type ApiKey = z.infer<typeof apiKeyItem>

export const createApiKeyRequest = z
  .strictObject({
    name: z.string().min(1).max(255),
    scope: z.enum(apiKeyScopes).default('user'),
    /** Required for keys of scope `worker`, and only for them. */
    worker_id: z.string().min(1).max(255).optional(),
    /** RFC 3339; absent: never. */
    expires_at: z.iso.datetime({ offset: true }).optional(),
  })
  .meta({ id: 'CreateApiKeyRequest' })
export type CreateApiKeyRequest = z.input<typeof createApiKeyRequest>

export const createApiKeyResponse = z
  .object({ raw_api_key: z.string().describe('Shown this once.'), api_key: apiKeyItem })
  .meta({ id: 'CreateApiKeyResponse' })
export type CreateApiKeyResponse = z.infer<typeof createApiKeyResponse>

export const listApiKeysResponse = z.object({ api_keys: z.array(apiKeyItem) }).meta({ id: 'ListApiKeysResponse' })

/** Who the caller is. */
export const whoami = z
  .object({
    uid: z.string(),
    type: z.enum(['user', 'service_account']),
    display_name: z.string(),
    email: z.string().nullable(),
    key_scope: z.enum([...apiKeyScopes, 'execution']),
    team_uids: z.array(z.string()),
    team_names: z.array(z.string()),
    /** The reference puts workspaces around teams; here a team is one, so these are the key's team again. */
    workspace_uid: z.string().nullable(),
    workspace_name: z.string().nullable(),
  })
  .meta({ id: 'Whoami' })
export type Whoami = z.infer<typeof whoami>
