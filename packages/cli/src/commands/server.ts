import { startGatewayServer, startServer } from '@openoz/server'
import { type Command, Option } from 'commander'
import { run, withExamples } from '../command-context.ts'
import { createLogger } from '../log.ts'
import { printJson } from '../output.ts'
import { addServerFlags, serverOptions } from '../server-flags.ts'
import { agentBundles } from '../stack/agent-bundles.ts'
import { stopInTurn } from '../stack/stop-in-turn.ts'
import { onStopSignals } from '../stop-signals.ts'

export function registerServer(program: Command): void {
  const command = program.command('server').description('start the control plane alone; workers join over the network')
  command.addOption(
    new Option(
      '--role <role>',
      'all: the whole control plane; gateway: only the model gateway, beside a control plane on the same DATABASE_URL',
    )
      .choices(['all', 'gateway'])
      .default('all'),
  )
  // For the chaos verifier: what this server would be told it finds by looking, which alone must be correct.
  command.addOption(new Option('--no-notify').hideHelp())
  addServerFlags(command).action(
    run<Record<string, unknown>>(async ({ options: globals, output, env }, { options }) => {
      const serverConfig = serverOptions(options, globals, env)
      const log = createLogger({ name: 'server', level: serverConfig.logLevel, env })
      using stop = onStopSignals()
      const isGateway = options.role === 'gateway'
      const server = isGateway
        ? await startGatewayServer(serverConfig, { log })
        : await startServer(serverConfig, { log, useNotify: options.notify !== false, bundles: agentBundles(env) })
      if (output.isJson) printJson(output, { type: 'server_ready', url: server.url, pid: server.pid })
      else output.line(`${isGateway ? 'Model gateway listens' : 'Control plane ready'} at ${server.url}`)
      return await stopInTurn({ signals: stop, ended: server.stopped, stop: () => server.stop(), log })
    }),
  )
  withExamples(command, [
    'oz server',
    'oz server --listen 0.0.0.0:4747 --tls-cert cert.pem --tls-key key.pem --public-url https://oz.example.com',
    'DATABASE_URL=postgres://oz@db/oz oz server --output-format ndjson',
    'DATABASE_URL=postgres://oz@db/oz oz server --role gateway --listen 0.0.0.0:4748',
  ])
}
