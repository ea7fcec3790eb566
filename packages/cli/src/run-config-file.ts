import { readFile } from 'node:fs/promises'
import { extname } from 'node:path'
import { type AmbientAgentConfig, AppError } from '@openoz/protocol'
import { ambientAgentConfig } from '@openoz/protocol/schemas'
import { parse as parseYaml } from 'yaml'

/** What `-f` may hold: a run's config under the reference's names, which calls the worker `host`. Unknown keys are errors. */
const runConfigFile = ambientAgentConfig
  .omit({ worker_host: true })
  .extend({ host: ambientAgentConfig.shape.worker_host })

export async function readRunConfigFile(file: string): Promise<AmbientAgentConfig> {
  const invalid = (problem: string) => new AppError('config_file_invalid', { file, problem })
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    throw invalid(error instanceof Error && 'code' in error ? `it cannot be read (${error.code})` : 'it cannot be read')
  }
  let value: unknown
  try {
    // JSON is YAML too, but its own parser tells better where it is wrong.
    value = extname(file) === '.json' ? JSON.parse(text) : parseYaml(text)
  } catch (error) {
    throw invalid((error as Error).message.split('\n')[0] ?? 'it cannot be understood')
  }
  const parsed = runConfigFile.safeParse(value ?? {})
  if (!parsed.success) {
    const issues = parsed.error.issues.map(({ path, message }) =>
      path.length > 0 ? `${path.join('.')}: ${message}` : message,
    )
    throw invalid(issues.join('; '))
  }
  const { host, ...config } = parsed.data
  return host === undefined ? config : { ...config, worker_host: host }
}
