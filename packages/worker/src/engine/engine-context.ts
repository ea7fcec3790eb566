import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { AppError } from '@openoz/protocol'
import { z } from 'zod'
import { type EngineTls, readTlsFiles } from './engine-tls.ts'

const contextMeta = z.looseObject({
  Endpoints: z.looseObject({
    docker: z.looseObject({ Host: z.string().min(1), SkipTLSVerify: z.boolean().optional() }),
  }),
})

/** What `docker context create` has stored: `contexts/{meta,tls}/<sha256 of the name>/` below Docker's folder. */
export function readContext(
  folder: string,
  name: string,
  problem: (text: string) => AppError,
): { host: string; tls: EngineTls | undefined } {
  const id = createHash('sha256').update(name).digest('hex')
  const file = join(folder, 'contexts/meta', id, 'meta.json')
  const { Host, SkipTLSVerify = false } = readMeta(file, problem).Endpoints.docker
  const files = readTlsFiles(join(folder, 'contexts/tls', id, 'docker'), problem)
  const isEncrypted = SkipTLSVerify || Object.keys(files).length > 0
  return { host: Host, tls: isEncrypted ? { ...files, rejectUnauthorized: !SkipTLSVerify } : undefined }
}

function readMeta(file: string, problem: (text: string) => AppError): z.infer<typeof contextMeta> {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    throw problem(code === 'ENOENT' ? `there is no such context (${file})` : `${file} cannot be read (${code})`)
  }
  try {
    return contextMeta.parse(JSON.parse(text))
  } catch {
    throw problem(`${file} names no engine`)
  }
}
