import { execFile } from 'node:child_process'
import { accessSync, constants, existsSync } from 'node:fs'
import { readFile, realpath } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { delimiter, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import type { AgentPlatform } from '@openoz/protocol'
import { notBuilt } from './libraries.ts'

const run = promisify(execFile)

/** What a bundle is made of on this machine, beside the code of `oz`. */
export interface BundleParts {
  platform: AgentPlatform
  /** By their places in the bundle. Programs and add-ons need libraries; what has a loader of its own is told the bundle's. */
  programs: Map<string, string>
  /** Copied as they are. */
  files: Map<string, string>
  links: Map<string, string>
  patchelf: string | undefined
  strip: string | undefined
  versions: { node: string; ripgrep: string; git?: string; libc: string }
  /** What this machine lacks, for whoever builds. */
  notes: string[]
}

const platforms: Record<string, AgentPlatform> = { x64: 'linux/amd64', arm64: 'linux/arm64' }
/** Those that clone and push over HTTPS, and serve a repository of the same disk; git starts them by name. */
const gitLinks = ['git-upload-pack', 'git-receive-pack', 'git-upload-archive']
const gitScripts = ['git-submodule', 'git-sh-setup', 'git-sh-i18n']

/** Where a bundle has the terms of Node and of what it contains. */
export const nodeLicence = 'licences/node.txt'

interface PartsWish {
  node?: string
  /** As a shell's. Where tools and programs of the system are looked for. */
  path: string
  /** From where packages are found. */
  from: string
}

/** Rejects with `agent_bundle_not_built` where no bundle can be made at all. */
export async function findParts({ node = process.execPath, path, from }: PartsWish): Promise<BundleParts> {
  const platform = process.platform === 'linux' ? platforms[process.arch] : undefined
  if (platform === undefined)
    throw notBuilt(
      `agents in containers run on Linux, on x64 or arm64, and this is ${process.platform} on ${process.arch}`,
    )
  const find = (name: string) => findTool(name, path)
  const need = (...names: string[]) => {
    const found = names.map(find).find((tool) => tool !== undefined)
    if (found === undefined) throw notBuilt(`there is no ${names.join(' or ')} on the PATH`)
    return found
  }
  const require = createRequire(from)
  const ripgrep = packageFile(require, `@vscode/ripgrep-linux-${process.arch}/bin/rg`)
  const parts: BundleParts = {
    platform,
    programs: new Map([
      ['bin/node', node],
      ['bin/rg', ripgrep],
      // Any POSIX shell will do; dash is the smallest, and the name is what scripts begin with.
      ['bin/dash', need('dash', 'bash')],
      ['libexec/dd', need('dd')],
      ['libexec/sleep', need('sleep')],
    ]),
    files: new Map(),
    links: new Map([['bin/oz-agent-worker', 'oz']]),
    patchelf: find('patchelf'),
    strip: find('strip'),
    versions: {
      node: await firstLine(node, /v(\S+)/),
      ripgrep: await firstLine(ripgrep, /(\d\S+)/),
      libc: await libc(),
    },
    notes: [],
  }
  addPseudoTerminals(parts, require)
  await addNodeLicence(parts, node)
  const authorities = ['/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt'].find(existsSync)
  if (authorities !== undefined) parts.files.set('etc/ca-certificates.crt', authorities)
  if (parts.patchelf !== undefined) await addGit(parts, find('git'))
  else
    parts.notes.push('patchelf is not installed: no git in the bundle, and its programs are started through its loader')
  if (parts.strip === undefined) parts.notes.push('strip (binutils) is not installed: the bundle is 18 MB larger')
  return parts
}

/** Node passes on the work of many: its own text names them all. It lies with the programs of its archive, or where npm or a distribution puts it. */
async function addNodeLicence(parts: BundleParts, node: string): Promise<void> {
  const prefix = dirname(dirname(await realpath(node)))
  const ofNpm = `node_modules/node-linux-${process.arch}/LICENSE`
  const places = ['LICENSE', ofNpm, 'share/doc/node/LICENSE', 'share/doc/nodejs/LICENSE', 'share/doc/nodejs/copyright']
  for (const file of places.map((place) => join(prefix, place))) {
    const text = await readFile(file, 'utf8').catch(() => '')
    if (text.includes('Node.js')) return void parts.files.set(nodeLicence, file)
  }
  parts.notes.push(
    `the licence of Node is not in ${prefix}, and so not in the bundle: whoever passes the bundle on has to add it`,
  )
}

async function addGit(parts: BundleParts, git: string | undefined): Promise<void> {
  if (git === undefined) return void parts.notes.push('git is not installed: none in the bundle')
  const core = (await run(git, ['--exec-path'])).stdout.trim()
  const remote = join(core, 'git-remote-http')
  if (!existsSync(remote)) return void parts.notes.push(`git has no ${remote}: none in the bundle`)
  parts.versions.git = await firstLine(git, /(\d\S+)/)
  const folder = 'libexec/git-core'
  parts.programs.set(`${folder}/git`, git).set(`${folder}/git-remote-http`, remote)
  parts.links.set(`${folder}/git-remote-https`, 'git-remote-http')
  for (const name of gitLinks) parts.links.set(`${folder}/${name}`, 'git')
  for (const name of gitScripts)
    if (existsSync(join(core, name))) parts.files.set(`${folder}/${name}`, join(core, name))
  const translate = join(core, 'git-sh-i18n--envsubst')
  if (existsSync(translate)) parts.programs.set(`${folder}/git-sh-i18n--envsubst`, translate)
}

/** The pseudo-terminal: a package with a native part of its own, which the build of the code leaves alone. */
function addPseudoTerminals(parts: BundleParts, require: NodeJS.Require): void {
  const native = `@lydell/node-pty-linux-${process.arch}`
  const main = dirname(packageFile(require, '@lydell/node-pty/package.json'))
  for (const name of ptyFiles) parts.files.set(`app/node_modules/@lydell/node-pty/${name}`, join(main, name))
  parts.files.set(`app/node_modules/${native}/package.json`, packageFile(require, `${native}/package.json`))
  parts.programs.set(`app/node_modules/${native}/pty.node`, packageFile(require, `${native}/pty.node`))
}

/** What it loads on Linux. */
const ptyFiles = [
  ...['LICENSE', 'eventEmitter2.js', 'index.js', 'interfaces.js', 'package.json', 'requireBinary.js', 'terminal.js'],
  ...['types.js', 'unixTerminal.js', 'utils.js'],
]

function packageFile(require: NodeJS.Require, name: string): string {
  try {
    return require.resolve(name)
  } catch (cause) {
    throw Object.assign(notBuilt(`the package that brings ${name} is not installed`), { cause })
  }
}

function findTool(name: string, path: string): string | undefined {
  return path
    .split(delimiter)
    .filter((folder) => folder.startsWith('/'))
    .map((folder) => join(folder, name))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
}

async function firstLine(program: string, pattern: RegExp): Promise<string> {
  const { stdout } = await run(program, ['--version'])
  return pattern.exec(stdout.split('\n')[0] ?? '')?.[1] ?? 'unknown'
}

async function libc(): Promise<string> {
  const { stdout, stderr } = await run('ldd', ['--version']).catch((error: { stdout: string; stderr: string }) => error)
  const line = `${stdout}${stderr}`.split('\n')[0] ?? ''
  if (/musl/.test(line)) throw notBuilt('this system’s C library is musl, and glibc is what agents are built from')
  return /(\d+\.\d+)\s*$/.exec(line)?.[1] ?? 'unknown'
}

/** The file itself behind a name, as it is copied. */
export function sourceOf(file: string): Promise<string> {
  return realpath(file)
}
