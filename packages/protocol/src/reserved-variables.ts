/** Ours, and git's settings that keep a run apart from the machine's: not for an environment to set. */
export function isReservedVariable(name: string): boolean {
  return /^(OZ|WARP|GIT_CONFIG)(_|$)/.test(name)
}
