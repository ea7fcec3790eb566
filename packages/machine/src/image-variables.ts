/**
 * Variables of an image that are meant for its own programs, and that would change ours: what is loaded into every process, and Node's settings. The
 * launchers of an agent bundle (`bin/oz`, `bin/oz-task`) give them another name before our Node starts, and here they get their own one back, for
 * the programs of the task. LD_PRELOAD acts on the launcher itself, so whoever makes the container has to rename that one.
 */
const prefix = 'OZ_IMAGE_'

/** Those that are renamed: the list in `bin/oz` of the bundle. A variable of another name is somebody's own. */
const renamed = [
  'LD_PRELOAD',
  'LD_AUDIT',
  'NODE_OPTIONS',
  'NODE_PATH',
  'NODE_V8_COVERAGE',
  'NODE_DEBUG',
  'OPENSSL_CONF',
]

export function restoreImageVariables(env: NodeJS.ProcessEnv): void {
  for (const name of renamed) {
    const value = env[prefix + name]
    if (value === undefined) continue
    env[name] = value
    delete env[prefix + name]
  }
}
