import { expect, type TestContext, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { startScriptedModel } from './support/scripted-model.ts'
import { bootSystemd, type SystemdMachine } from './support/systemd-machine.ts'

/** `oz-agent-worker install` under a real systemd. Skipped, and says so, where none can be booted. */

const serviceName = 'oz-agent-worker.service'
const uid = '64123'

interface ServicePlace {
  of: string
  /** Before every command. */
  as: string[]
  scope: string[]
  unit: string
  environmentFile: string
  workspaces: string
}

const places: ServicePlace[] = [
  {
    of: 'the machine',
    as: [],
    scope: [],
    unit: `/etc/systemd/system/${serviceName}`,
    environmentFile: '/etc/openoz/oz-agent-worker.env',
    workspaces: '/var/lib/oz/workspaces',
  },
  {
    of: 'a user',
    as: [
      ...['setpriv', '--reuid', uid, '--regid', uid, '--clear-groups'],
      ...['env', 'HOME=/home/ada', `XDG_RUNTIME_DIR=/run/user/${uid}`],
    ],
    scope: ['--user'],
    unit: `/home/ada/.config/systemd/user/${serviceName}`,
    environmentFile: '/home/ada/.config/openoz/oz-agent-worker.env',
    workspaces: '/home/ada/.local/state/openoz/workspaces',
  },
]

async function boot(context: TestContext): Promise<SystemdMachine> {
  const machine = await bootSystemd()
  if (!('problem' in machine)) return machine
  console.error(`NOT TESTED: ${machine.problem}`)
  return context.skip(machine.problem)
}

/** stdout of a command that has to succeed. */
async function must(machine: SystemdMachine, command: string[], env?: Record<string, string>): Promise<string> {
  const { exitCode, stdout, stderr } = await machine.run(command, env)
  if (exitCode !== 0) throw new Error(`${command.join(' ')} ended with ${exitCode}:\n${stdout}\n${stderr}`)
  return stdout
}

/** A run at work on a command that ends when its workspace has the file `go`. */
async function startRun(cp: ControlPlane, machine: SystemdMachine, { workspaces }: ServicePlace) {
  const runId = await cp.createRun({
    config: { worker_host: 'as-a-service', model_id: 'openai/scripted', idle_timeout_minutes: 0 },
  })
  const workspace = `${workspaces}/${runId}`
  await until(
    () => machine.run(['test', '-e', `${workspace}/begun`]),
    ({ exitCode }) => exitCode === 0,
    { timeoutMs: 20_000, everyMs: 100 },
  )
  return { runId, go: () => must(machine, ['touch', `${workspace}/go`]) }
}

test.for(places)(
  'a worker as a service of $of: a restart leaves its agents to the next process, a stop ends them',
  { timeout: 120_000 },
  async (place, context) => {
    await using machine = await boot(context)
    await using model = await startScriptedModel({
      handler: ({ body }) =>
        JSON.stringify(body).includes('"role":"tool"')
          ? { text: 'Done.' }
          : {
              toolCalls: [
                { name: 'run_command', arguments: { command: 'touch begun; until [ -e go ]; do sleep 0.1; done' } },
              ],
            },
    })
    await using cp = await startControlPlane({ env: { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` } })
    const { as, scope, unit, environmentFile } = place
    const systemctl = (...words: string[]) => must(machine, [...as, 'systemctl', ...scope, ...words])
    const log = () => must(machine, ['journalctl', '--identifier', 'oz-agent-worker', '--output', 'cat'])
    if (scope.length > 0) {
      await must(machine, ['useradd', '--create-home', '--uid', uid, 'ada'])
      await must(machine, ['loginctl', 'enable-linger', 'ada'])
      const manager = `user@${uid}.service`
      await until(
        () => machine.run(['systemctl', 'is-active', manager]),
        ({ exitCode }) => exitCode === 0,
      )
    }

    const flags = ['--worker-id', 'as-a-service', '--backend', 'direct', '--server-url', cp.url]
    await must(machine, [...as, 'oz-agent-worker', 'install', ...scope, ...flags], { OZ_API_KEY: cp.adminKey })
    expect(await machine.run([...as, 'systemd-analyze', ...scope, 'verify', unit])).toEqual({
      exitCode: 0,
      stdout: '',
      stderr: '',
    })
    expect(await must(machine, ['stat', '--format', '%a', environmentFile])).toBe('600\n')
    expect(await systemctl('is-enabled', serviceName)).toBe('enabled\n')

    const outliving = await startRun(cp, machine, place)
    const before = await systemctl('show', '--property', 'MainPID', '--value', serviceName)
    await systemctl('restart', serviceName)
    expect(await systemctl('show', '--property', 'MainPID', '--value', serviceName)).not.toBe(before)
    await until(log, (text) => text.includes('taken over'), { everyMs: 100 })
    await outliving.go()
    await cp.waitFor(outliving.runId, 'SUCCEEDED', 20_000)
    expect((await cp.client.runs.executions(outliving.runId)).executions).toHaveLength(1)

    const stopped = await startRun(cp, machine, place)
    await systemctl('stop', serviceName)
    expect(await must(machine, ['ps', '-eo', 'args'])).not.toContain('agent run')
    const { executions } = await cp.client.runs.executions(stopped.runId)
    expect(executions).toMatchObject([{ state: 'ended', failure_reason: 'graceful_shutdown' }])
    expect(await systemctl('show', '--property', 'Result', '--value', serviceName)).toBe('success\n')

    const lines = (await log())
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { msg: string })
    expect(lines.filter(({ msg }) => msg === 'Listening for tasks')).toHaveLength(2)
    expect(await must(machine, ['journalctl'])).not.toContain(cp.adminKey)

    await must(machine, [...as, 'oz-agent-worker', 'uninstall', ...scope])
    expect((await machine.run(['ls', unit, environmentFile])).stdout).toBe('')
    expect((await machine.run([...as, 'systemctl', ...scope, 'cat', serviceName])).exitCode).toBe(1)
  },
)
