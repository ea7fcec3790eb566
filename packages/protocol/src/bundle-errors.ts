import type { ErrorSpec } from './error-spec.ts'

/** What is wrong with the folder of programs that agents in containers run. Part of the registry in `errors.ts`, among what operators meet. */
export const bundleErrors = {
  agent_bundle_missing: {
    status: 503,
    platform: 'resource_unavailable',
    retryable: false,
    title: 'No agent bundle',
    message: 'There is no agent bundle for {platform}, which containers run their agent from. Looked in: {places}.',
    remedy:
      '`npm run build` in the clone makes it for the machine that it runs on; `oz bundle make` does where openoz was installed from npm. OZ_AGENT_BUNDLE names one that lies elsewhere.',
  },
  agent_bundle_broken: {
    status: 503,
    platform: 'resource_unavailable',
    retryable: false,
    title: 'Agent bundle damaged',
    message: 'The agent bundle in {folder} cannot be used: {problem}.',
    remedy: 'Make it anew with `npm run build`, or copy it again, whole.',
  },
  agent_bundle_wrong_platform: {
    status: 503,
    platform: 'operation_not_supported',
    retryable: false,
    title: 'Agent bundle of another CPU',
    message: 'The agent bundle in {folder} is for {found}, and {wanted} is needed.',
    remedy:
      'Build openoz on a machine of that kind and copy its `dist/agent` here: as `dist/agent-linux-arm64` or `dist/agent-linux-amd64`, or wherever OZ_AGENT_BUNDLE says.',
  },
  agent_bundle_not_built: {
    status: 503,
    platform: 'operation_not_supported',
    retryable: false,
    title: 'Agent bundle not built',
    message: 'The agent bundle cannot be made here: {problem}.',
    remedy: 'Build on Linux with glibc (Debian, Ubuntu, Fedora, …), or copy the `dist/agent` of such a machine here.',
  },
  server_not_included: {
    status: 503,
    platform: 'operation_not_supported',
    retryable: false,
    title: 'No control plane in here',
    message:
      'This `oz` is the one of an agent bundle: it holds the agent, the worker and the commands, and no control plane.',
    remedy: 'Start the control plane from the clone or from the npm package.',
  },
} as const satisfies Record<string, ErrorSpec>
