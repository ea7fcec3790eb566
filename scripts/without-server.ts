import { join } from 'node:path'
import type { Plugin } from 'esbuild'
import { root } from './run-command.ts'

/** What the command line takes of the control plane. One that is missing here fails the build. */
const left = [
  'openDatabase',
  'restoreBackup',
  'startEmbeddedPostgres',
  'startGatewayServer',
  'startServer',
  'writeBackup',
]

/**
 * For the agent's bundle: the control plane with its options and nothing else. Commands that start one are there, with their help, and say that it is
 * not included.
 */
export const withoutServer: Plugin = {
  name: 'without the control plane',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^@openoz\/server$/ }, () => ({ path: 'none', namespace: 'server' }))
    onLoad({ filter: /.*/, namespace: 'server' }, () => ({
      contents: `
        import { AppError } from '@openoz/protocol'
        export { readServerOptions, serverFlags } from './config.ts'
        const missing = () => { throw new AppError('server_not_included') }
        export { ${left.map((name) => `missing as ${name}`).join(', ')} }`,
      resolveDir: join(root, 'packages', 'server', 'src'),
    }))
  },
}
