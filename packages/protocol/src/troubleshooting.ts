import type { ErrorCode } from './errors.ts'
import type { AnyFailureReason } from './failure-reasons.ts'

/**
 * What goes wrong between a key, a worker and a run, from the side of whoever sees it. `docs/troubleshooting.md` is made from it, with the
 * sentences and remedies of the codes; `test/completeness/troubleshooting.test.ts` names the test that reproduces each. An entry is for a
 * symptom: an error that explains itself where it appears needs none.
 */
export interface Trouble {
  /** Anchor of its section. */
  id: string
  area: TroubleArea
  symptom: string
  /** What its log, `oz run why` or the run's message names. */
  codes: readonly ErrorCode[]
  /** What the run's end is put down to, in `failure_reason` of `oz run why`. */
  reasons?: readonly AnyFailureReason[]
  /** Where to look, and what to do beside the remedies of the codes. Markdown. */
  advice: string
}

export const troubleAreas = [
  'The worker does not start',
  'The worker does not connect',
  'A run is not picked up',
  'A run fails',
] as const
export type TroubleArea = (typeof troubleAreas)[number]

export const troubles: readonly Trouble[] = [
  {
    id: 'no-oz',
    area: 'The worker does not start',
    symptom: 'It ends at once, because it cannot start agents',
    codes: ['oz_missing'],
    advice: 'Agents are started as `oz`. `which oz`, as the user and with the `PATH` of the worker, has to find it.',
  },
  {
    id: 'workspaces-not-writable',
    area: 'The worker does not start',
    symptom: 'It ends at once, because it cannot make workspaces',
    codes: ['workspace_root_not_writable'],
    advice: 'The folder, its owner and the disk it is on: `oz doctor` on that machine looks at them.',
  },
  {
    id: 'wrong-options',
    area: 'The worker does not start',
    symptom: 'It ends with exit code 2',
    codes: ['usage', 'option_invalid', 'config_file_invalid', 'backend_not_available', 'target_dir_invalid'],
    advice:
      'The message names the flag, or the path of the key in the config file. [Configuration](configuration.md) lists all.',
  },
  {
    id: 'engine-unreachable',
    area: 'The worker does not start',
    symptom: 'It ends at once, because no Docker engine answers',
    codes: ['engine_unreachable', 'docker_context_invalid', 'docker_config_unreadable'],
    advice:
      'The sentence names the address and who named it: `DOCKER_HOST`, a context, or the default socket. `docker info`, as the user and with the environment of the worker, has to work; `oz doctor` asks in the same way as a worker does. A worker in a container needs the socket in it: `-v /var/run/docker.sock:/var/run/docker.sock`.',
  },
  {
    id: 'engine-permission',
    area: 'The worker does not start',
    symptom: 'It ends at once, because it may not use the socket of Docker',
    codes: ['engine_permission'],
    advice:
      '`ls -l` of the socket names the group that may. A group that was added counts from the next login on, and for a service from its next start. Whoever may use the socket of an engine that root runs can become root.',
  },
  {
    id: 'engine-platform',
    area: 'The worker does not start',
    symptom: 'It ends at once, because of what the Docker engine is',
    codes: ['engine_not_linux', 'engine_platform_unsupported', 'engine_api_unsupported'],
    advice: '`docker version` shows system, CPU and API of the engine, which may be another machine than the worker’s.',
  },
  {
    id: 'engine-lacks',
    area: 'The worker does not start',
    symptom: 'It ends at once, because the engine does not have what the config file asks for',
    codes: ['container_runtime_missing', 'network_missing', 'host_path_not_allowed', 'volume_spec_invalid'],
    advice:
      '`docker info` lists runtimes, `docker network ls` networks: of the engine that the worker’s log names, which may be on another machine.',
  },
  {
    id: 'no-way-to-the-control-plane',
    area: 'The worker does not start',
    symptom: 'It ends at once, because its containers could not reach the control plane',
    codes: ['relay_unavailable'],
    advice:
      'Where the control plane listens on the loopback only, or containers have no network, they reach it through a socket in the worker’s state folder. An engine on another machine, or a worker in a container whose state folder is no volume, cannot mount that.',
  },
  {
    id: 'no-agent-bundle',
    area: 'The worker does not start',
    symptom: 'It ends at once, because it has no agent for containers',
    codes: ['agent_bundle_missing', 'agent_bundle_wrong_platform', 'agent_bundle_broken'],
    advice: '`oz doctor` shows which one would be taken. [The agent bundle](agent-bundle.md) says how one is made.',
  },
  {
    id: 'service',
    area: 'The worker does not start',
    symptom: 'The service cannot be installed',
    codes: ['service_install_failed'],
    advice:
      '`oz-agent-worker install --print` shows the files. Later: `systemctl status oz-agent-worker`, `journalctl -u oz-agent-worker`.',
  },
  {
    id: 'key-refused',
    area: 'The worker does not connect',
    symptom: 'It ends, because the control plane refuses its key',
    codes: [
      'not_logged_in',
      'api_key_unknown',
      'api_key_expired',
      'api_key_revoked',
      'not_authorized',
      'worker_key_other_worker',
    ],
    advice:
      'Make a new one and start the worker with it: `oz api-key create build-1 --scope worker --worker-id build-1 --no-expiration`. `oz api-key list` shows the last characters of those that exist.',
  },
  {
    id: 'unreachable',
    area: 'The worker does not connect',
    symptom: 'It says `Not connected to the server`, again and again',
    codes: ['server_unreachable', 'server_answer_unreadable'],
    advice:
      'The sentence tells a name that does not resolve, a closed port, a missing route, a proxy and a certificate apart. [Network](network.md) says what has to be open. `oz doctor --server-url URL` tries it.',
  },
  {
    id: 'websocket-blocked',
    area: 'The worker does not connect',
    symptom: 'HTTP reaches the control plane, the WebSocket does not',
    codes: ['websocket_blocked'],
    advice:
      'A firewall or proxy ends upgrades of `/api/v1/selfhosted/worker/ws`. The worker then uses its plain HTTP channel, says so once at level warn, and `oz worker list --output-format json` shows it as `http`; nothing has to be done. The error means that this did not pass either, which is mostly a proxy that collects streams before it passes them on. The worker goes on trying. [Agents without a worker](unmanaged.md) work meanwhile.',
  },
  {
    id: 'connection-details',
    area: 'The worker does not connect',
    symptom: 'The log does not say enough',
    codes: ['server_unreachable'],
    advice: 'Start it with `--log-level debug`. Keys and contents are logged at no level.',
  },
  {
    id: 'worker-not-there',
    area: 'A run is not picked up',
    symptom: 'It stays QUEUED: no worker is there for it',
    codes: ['worker_not_connected'],
    advice:
      '`oz run why RUN_ID` says for each connected worker why it does not take the run; `oz worker list` shows who is connected.',
  },
  {
    id: 'worker-id-differs',
    area: 'A run is not picked up',
    symptom: 'It stays QUEUED although the worker is connected: `--host` and `--worker-id` differ',
    codes: ['worker_id_differs'],
    advice: 'Ids are compared exactly.',
  },
  {
    id: 'worker-of-another-team',
    area: 'A run is not picked up',
    symptom: 'It stays QUEUED although a worker of that id is connected: it is another team’s',
    codes: ['worker_not_connected'],
    advice:
      'A control plane tells no team of another’s workers. The worker’s log does: `Takes runs of the team of its key only`, with the team.',
  },
  {
    id: 'worker-draining',
    area: 'A run is not picked up',
    symptom: 'It stays QUEUED: every worker that could take it is draining',
    codes: ['worker_draining'],
    advice:
      'A worker drains while it is being stopped, or because an operator has taken its id out of service. That is kept in the control plane: a worker that is started anew under the id drains too.',
  },
  {
    id: 'run-failed',
    area: 'A run fails',
    symptom: 'What happened?',
    codes: ['repository_clone_failed', 'setup_command_failed'],
    reasons: ['agent_invocation', 'container_exit'],
    advice:
      '`oz run why RUN_ID` names the code and the reason, `oz run watch RUN_ID` shows the whole log, `oz run transcript RUN_ID` what was said. Logs are kept, also those of attempts that were repeated.',
  },
  {
    id: 'look-into-the-workspace',
    area: 'A run fails',
    symptom: 'Its files would tell more',
    codes: ['setup_command_failed'],
    reasons: ['setup_command'],
    advice:
      'Start the worker with `--no-cleanup` and the run again: the workspace stays, and the worker’s log says where.',
  },
  {
    id: 'run-details',
    area: 'A run fails',
    symptom: 'The worker’s log does not say enough',
    codes: [],
    reasons: ['agent_invocation'],
    advice: 'Start the worker with `--log-level debug`. The last lines that an agent wrote are in the run’s message.',
  },
  {
    id: 'out-of-memory',
    area: 'A run fails',
    symptom: 'The agent, or a command of it, ends with exit code 137',
    codes: ['out_of_memory'],
    reasons: ['agent_invocation'],
    advice: '137 is SIGKILL. Where it was the kernel’s, for memory, the message says so; else somebody ended it.',
  },
  {
    id: 'container-out-of-memory',
    area: 'A run fails',
    symptom: 'Its container has used more memory than it was given',
    codes: ['out_of_memory'],
    reasons: ['container_oom'],
    advice:
      'The message names the limit. Start it with more, `--memory-gb` and `--vcpus` of `oz agent run-cloud`. A command of the agent that the kernel ends does not end the run: the agent is told, and goes on.',
  },
  {
    id: 'instance-too-large',
    area: 'A run fails',
    symptom: 'It asks for more CPUs or memory than the engine’s machine has',
    codes: ['instance_shape_too_large'],
    reasons: ['unschedulable'],
    advice: 'The message names both. Nothing is tried again: no attempt would find more on that machine.',
  },
  {
    id: 'container-killed',
    area: 'A run fails',
    symptom: 'Its container was killed',
    codes: [],
    reasons: ['agent_invocation'],
    advice:
      'By `docker kill`, or by whatever else ends processes of that machine: exit code 137, without a word of memory. It is tried again, with the work that its worker could still save.',
  },
  {
    id: 'engine-stopped',
    area: 'A run fails',
    symptom: 'Docker was stopped while it ran',
    codes: ['engine_stopped'],
    reasons: ['container_wait'],
    advice:
      'It is tried again. While the engine is away nothing is known of its containers, and nothing is called ended; with `live-restore` they go on, and so does the run.',
  },
  {
    id: 'engine-says-no',
    area: 'A run fails',
    symptom: 'The engine does not make its container, or does not start it',
    codes: ['engine_failed'],
    reasons: ['container_create', 'container_start'],
    advice:
      'The message has the engine’s own words. It is tried once more; if it fails again, look at the engine’s log, and whether `docker run --rm IMAGE true` works there.',
  },
  {
    id: 'no-network-left',
    area: 'A run fails',
    symptom: 'There are no addresses left for its network',
    codes: ['network_pool_exhausted'],
    reasons: ['container_create'],
    advice:
      'Engines have room for some 30 networks of their own choice, all programs of the machine together; each task has one. After that the worker takes small ones out of `backend.docker.network_pool`, and only when that is used up, too, or overlaps with what is there, a run ends so.',
  },
  {
    id: 'sidecar',
    area: 'A run fails',
    symptom: 'One of its sidecars cannot be prepared',
    codes: ['sidecar_mount_invalid', 'sidecar_unusable'],
    reasons: ['sidecar_prep'],
    advice:
      'Its image is pulled as the run’s own is, and what goes wrong with that is told in the same words; what is left is where it shall be mounted, and its files.',
  },
  {
    id: 'volume-missing',
    area: 'A run fails',
    symptom: 'A folder of the worker’s volumes is not there',
    codes: ['bind_source_missing'],
    reasons: ['volume_mount'],
    advice:
      'Folders are those of the engine’s machine. The worker does not have them made: it would be as root, and empty.',
  },
  {
    id: 'image-lacks',
    area: 'A run fails',
    symptom: 'Its image has no shell, or no git',
    codes: ['shell_missing', 'git_missing'],
    advice:
      'Images of any kind will do, musl (Alpine) and distroless ones too: the agent [brings what it needs itself](agent-bundle.md). Commands need the image’s own shell, and so do setup commands.',
  },
  {
    id: 'image-wrong-platform',
    area: 'A run fails',
    symptom: 'Its image is for another CPU than the engine’s',
    codes: ['image_wrong_platform'],
    reasons: ['invalid_image'],
    advice:
      '`docker image inspect --format {{.Architecture}} IMAGE` against `docker version`. An engine would run it, where it can, by emulation and many times slower; the worker refuses it before it starts.',
  },
  {
    id: 'image-login',
    area: 'A run fails',
    symptom: 'Its image cannot be pulled: the registry asks for a login',
    codes: ['image_login_required', 'credential_helper_failed'],
    reasons: ['image_pull'],
    advice:
      'Logins are those of the worker’s user and machine, not yours: `docker login` there, then `docker pull IMAGE` there has to work. A worker in a container is given them as a file: `-v ~/.docker/config.json:/root/.docker/config.json:ro`; helpers that the file names have to be in that container, too. They count from the next pull on.',
  },
  {
    id: 'image-missing',
    area: 'A run fails',
    symptom: 'Its image cannot be pulled: there is no such image or tag',
    codes: ['image_not_found', 'image_not_present', 'image_reference_invalid'],
    reasons: ['image_pull', 'invalid_image'],
    advice: 'The message has the name as it was asked for. Without a host it is one of Docker Hub.',
  },
  {
    id: 'image-registry-away',
    area: 'A run fails',
    symptom: 'Its image cannot be pulled: the registry cannot be reached',
    codes: ['image_registry_unreachable', 'image_corrupt', 'image_pull_failed'],
    reasons: ['image_pull'],
    advice:
      'The engine pulls, with its own name servers and proxies (`docker info` shows them), not the worker and not your machine: `docker pull IMAGE` there tries it. An unreachable registry was asked four times by then. `image_pull_policy: IfNotPresent` does with what is on the engine already.',
  },
  {
    id: 'image-no-room',
    area: 'A run fails',
    symptom: 'The engine’s disk is full',
    codes: ['image_disk_full', 'engine_disk_full'],
    reasons: ['image_pull', 'container_create'],
    advice: '`docker system df` shows what is on it. Layers are stored packed and unpacked while they are pulled.',
  },
  {
    id: 'out-of-disk',
    area: 'A run fails',
    symptom: 'No space is left',
    codes: ['disk_full'],
    reasons: ['disk_full', 'workspace_setup'],
    advice:
      'The message names the folder. `oz doctor` says how much is free. A worker whose state folder has less than 64 MiB (of a small disk, less than a tenth), or next to no inodes, takes no new tasks until it has.',
  },
  {
    id: 'oz-gone',
    area: 'A run fails',
    symptom: '`oz` has disappeared since the worker was started',
    codes: ['oz_missing'],
    reasons: ['agent_invocation'],
    advice: 'As after an update that did not finish. The worker itself goes on.',
  },
  {
    id: 'workspace-not-made',
    area: 'A run fails',
    symptom: 'Its workspace cannot be made',
    codes: ['workspace_root_not_writable'],
    reasons: ['workspace_setup'],
    advice:
      'The worker’s user has to be able to write there, and the users of its tasks to pass through: no parent folder of mode 0700.',
  },
  {
    id: 'attempts',
    area: 'A run fails',
    symptom: 'It was tried again and again before it ended',
    codes: [],
    reasons: ['lost', 'lease_lost', 'worker_died', 'start_timeout'],
    advice:
      '`oz run attempts RUN_ID` lists its executions with worker, exit code and reason. How often is tried depends on the [reason](errors.md#failure-reasons-of-workers), and on `--max-attempts` of `oz agent run-cloud`. Where each attempt is lost, look at the machine of its worker and at its network.',
  },
  {
    id: 'poison',
    area: 'A run fails',
    symptom: 'Its workers die with it, again and again',
    codes: [],
    reasons: ['run_poison'],
    advice:
      'The message names the workers. Something that the run does takes worker and agent along: memory, most often, or a command that ends processes by name (`dmesg`, `journalctl -k` and `oz run transcript RUN_ID` on what it did last). It is not offered again by itself; `oz run follow-up RUN_ID` tries it once more, and the next such death ends that too, until an attempt ends well. Give the worker limits of its own for memory first.',
  },
]
