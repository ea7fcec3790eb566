import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { AppError } from '@openoz/protocol'
import { z } from 'zod'

/** What of `config.json` concerns us. Docker's programs write much more into it. */
const dockerConfig = z.looseObject({
  currentContext: z.string().optional(),
  credsStore: z.string().optional(),
  credHelpers: z.record(z.string(), z.string()).optional(),
  auths: z
    .record(
      z.string(),
      z.looseObject({
        auth: z.string().optional(),
        username: z.string().optional(),
        password: z.string().optional(),
        identitytoken: z.string().optional(),
        registrytoken: z.string().optional(),
      }),
    )
    .optional(),
})
export type DockerConfig = z.infer<typeof dockerConfig>

/** DOCKER_CONFIG, or `~/.docker`. */
export function dockerConfigFolder(env: NodeJS.ProcessEnv): string {
  return env.DOCKER_CONFIG || join(env.HOME || homedir(), '.docker')
}

export function dockerConfigFile(env: NodeJS.ProcessEnv): string {
  return join(dockerConfigFolder(env), 'config.json')
}

/** Read anew each time: a `docker login` counts from the next pull on. Empty without the file. Throws `docker_config_unreadable`. */
export function readDockerConfig(env: NodeJS.ProcessEnv): DockerConfig {
  const file = dockerConfigFile(env)
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT' || code === 'ENOTDIR') return {}
    throw unreadable(file, code === 'EACCES' ? 'this user may not read it' : `it cannot be read (${code})`)
  }
  // Not what the parsers say: they quote the text, and it holds passwords.
  let content: unknown
  try {
    content = text.trim() === '' ? {} : JSON.parse(text)
  } catch {
    throw unreadable(file, 'it is not JSON')
  }
  const parsed = dockerConfig.safeParse(content)
  if (parsed.success) return parsed.data
  const place = parsed.error.issues[0]?.path.join('.')
  throw unreadable(file, place ? `${place} is not what Docker writes there` : 'it is not an object')
}

function unreadable(file: string, problem: string): AppError {
  return new AppError('docker_config_unreadable', { file, problem })
}
