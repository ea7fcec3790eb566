import { accessSync, constants, existsSync, statSync } from 'node:fs'
import { delimiter, isAbsolute, join } from 'node:path'
import { bundleFolder } from './bundle-folder.ts'

/** How git is started: `env` is what it needs, the given variables included. */
export interface GitProgram {
  program: string
  env: NodeJS.ProcessEnv
}

/**
 * The git to use: the machine's (or the image's) own, which fits its users' settings and credential helpers, else that of the agent bundle we run from.
 * undefined where there is neither. Only for what we start ourselves: the variables that the bundle's git needs must not reach a tool.
 */
export function gitProgram(
  env: NodeJS.ProcessEnv,
  { bundle = bundleFolder() }: { bundle?: string } = {},
): GitProgram | undefined {
  if (process.platform === 'win32' || isOnPath('git', env.PATH)) return { program: 'git', env }
  if (bundle === undefined) return undefined
  const program = join(bundle, 'libexec', 'git-core', 'git')
  if (!existsSync(program)) return undefined
  // What the image loads into its own programs is for its own C library.
  const { LD_PRELOAD: _preload, LD_LIBRARY_PATH: _libraries, ...rest } = env
  return {
    program,
    env: {
      ...rest,
      GIT_EXEC_PATH: join(bundle, 'libexec', 'git-core'),
      GIT_TEMPLATE_DIR: env.GIT_TEMPLATE_DIR ?? join(bundle, 'share', 'git-templates'),
      GIT_SSL_CAINFO: env.GIT_SSL_CAINFO ?? env.SSL_CERT_FILE ?? authorities(bundle),
    },
  }
}

/** The image knows best whom it trusts: operators put authorities of their own there. */
function authorities(bundle: string): string {
  const known = ['/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt', '/etc/ssl/cert.pem']
  return known.find((file) => existsSync(file)) ?? join(bundle, 'etc', 'ca-certificates.crt')
}

/** As a shell looks a program up. Without a PATH, as the system does then. */
export function isOnPath(name: string, path = '/usr/local/bin:/usr/bin:/bin'): boolean {
  return path.split(delimiter).some((folder) => isAbsolute(folder) && isExecutable(join(folder, name)))
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return statSync(file).isFile()
  } catch {
    return false
  }
}
