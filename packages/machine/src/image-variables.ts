/**
 * Variables of an image that are meant for its own programs, and that would change ours: what is loaded into every process, and Node's settings. The
 * launchers of an agent bundle (`bin/oz`, `bin/oz-task`) give them another name before our Node starts, and here they get their own one back, for
 * the programs of the task. LD_PRELOAD acts on the launcher itself, so whoever makes the container has to rename that one.
 */
const prefix = 'OZ_IMAGE_'

export function restoreImageVariables(env: NodeJS.ProcessEnv): void {
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith(prefix)) continue
    env[name.slice(prefix.length)] = value
    delete env[name]
  }
}
