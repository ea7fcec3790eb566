import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { AgentManifest } from '@openoz/protocol'
import type { Command } from 'commander'
import { run, withExamples } from '../command-context.ts'
import { type Output, printJson } from '../output.ts'
import { renderFields } from '../table.ts'

export function registerBundle(program: Command): void {
  const bundle = program
    .command('bundle')
    .description(
      'make and check the folder that agents in containers run from: oz, Node, git and all that an image may lack',
    )
  withExamples(registerMake(bundle), ['oz bundle make', 'oz bundle make --into /opt/openoz/agent'])
  withExamples(registerVerify(bundle), ['oz bundle verify', 'oz bundle verify /opt/openoz/agent --output-format json'])
  withExamples(registerRelocate(bundle), ['oz bundle relocate /opt/openoz/agent'])
}

function registerMake(bundle: Command): Command {
  return bundle
    .command('make')
    .description('make one from this installation and what this machine has; `npm run build` does that in a clone')
    .option('--into <FOLDER>', 'where (default: `agent` beside this program)')
    .action(
      run<{ into?: string }>(async ({ output, env, progress }, { options }) => {
        const { installedProgram, makeInstalledBundle } = await import('../bundle/installed-bundle.ts')
        const into = resolve(options.into ?? join(installedProgram(), 'agent'))
        const cache = await mkdtemp(join(tmpdir(), 'oz-bundle-'))
        try {
          progress.waitFor('the bundle')
          const { manifest, notes } = await makeInstalledBundle({ into, cache, path: env.PATH ?? '' })
          for (const note of notes) output.note(note)
          show(output, manifest, into)
        } finally {
          await rm(cache, { recursive: true, force: true })
        }
        return 0
      }),
    )
}

function registerVerify(bundle: Command): Command {
  return bundle
    .command('verify')
    .argument('[FOLDER]', 'default: the one that a worker on this machine would take')
    .description('read all of a bundle and compare it with its manifest')
    .action(
      run(async ({ output, env }, { args }) => {
        const { verifyBundle } = await import('@openoz/worker')
        const folder = resolve(args[0] ?? (await ownBundle(env)))
        show(output, await verifyBundle(folder), folder)
        return 0
      }),
    )
}

function registerRelocate(bundle: Command): Command {
  return bundle
    .command('relocate')
    .argument('<FOLDER>')
    .description('make the programs of a copied bundle start from where it lies; it stays as good for containers')
    .action(
      run(async ({ output }, { args }) => {
        const { relocateBundle } = await import('../bundle/relocate.ts')
        const folder = resolve(args[0] ?? '')
        await relocateBundle(folder)
        output.note(`Start it with ${join(folder, 'bin', 'node')} ${join(folder, 'app', 'oz.mjs')}`)
        return 0
      }),
    )
}

async function ownBundle(env: NodeJS.ProcessEnv): Promise<string> {
  const { findBundle } = await import('@openoz/worker')
  const platform = process.arch === 'arm64' ? 'linux/arm64' : 'linux/amd64'
  return (await findBundle({ platform, env })).folder
}

function show(output: Output, { files: _files, licences: _licences, ...about }: AgentManifest, folder: string): void {
  if (output.isJson) {
    printJson(output, { folder, ...about })
    return
  }
  output.line(
    renderFields([
      ['Folder', folder],
      ['Platform', about.platform],
      ['Hash', about.hash],
      ['oz', about.oz],
      ['Node', about.node],
      ['git', about.git ?? 'none'],
      ['ripgrep', about.ripgrep],
      ['glibc', about.libc],
      ['Patched', about.is_patched ? 'yes' : 'no: started through its loader'],
    ]),
  )
}
