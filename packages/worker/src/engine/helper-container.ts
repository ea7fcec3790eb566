import { type ContainerMount, type ContainerSpec, createContainer } from './containers.ts'
import type { Engine } from './engine.ts'
import { isMissing } from './engine-failure.ts'
import { importImage } from './images.ts'
import { tarOf } from './tar-text.ts'

/** Without any content: what is made of it never runs. */
export const emptyImage = 'openoz/empty:1'

/**
 * Makes a container that never runs: volumes are filled and read through it, by archives. So a worker needs no path on the engine's machine, and nothing
 * of the task's own image. Fails with 409 when the name is taken, which makes it a lock.
 */
export async function createHelper(
  engine: Engine,
  { name, labels, mounts }: { name: string; labels: Record<string, string>; mounts: ContainerMount[] },
): Promise<string> {
  const spec: ContainerSpec = {
    Image: emptyImage,
    // The engine wants one.
    Cmd: ['/none'],
    Labels: labels,
    HostConfig: { Mounts: mounts, NetworkMode: 'none', LogConfig: { Type: 'none', Config: {} } },
  }
  try {
    return (await createContainer(engine, spec, { name })).Id
  } catch (error) {
    if (!isMissing(error)) throw error
    const [repository = '', tag = ''] = emptyImage.split(':')
    await importImage(engine, { repository, tag, archive: await tarOf([]) })
    return (await createContainer(engine, spec, { name })).Id
  }
}

/** A volume at that place, with what is in it and nothing else. */
export function volumeMount(volume: string, target: string): ContainerMount {
  return { Type: 'volume', Source: volume, Target: target, VolumeOptions: { NoCopy: true } }
}
