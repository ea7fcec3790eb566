/**
 * The variables of a container whose image wants a library loaded into every program (LD_PRELOAD; images for Ruby do so with jemalloc): it is made for
 * the image's C library, and our own programs would not even start with it where that one is newer. They get it by another name, and give it back to
 * what they start (see `image-variables.ts` of the package `machine`).
 */
export function withPreloadAside(
  environment: Record<string, string>,
  imageEnvironment: readonly string[] | null | undefined,
): Record<string, string> {
  const ofImage = imageEnvironment?.find((entry) => entry.startsWith(`${name}=`))?.slice(name.length + 1)
  const value = environment[name] ?? ofImage
  return value ? { ...environment, [name]: '', [`OZ_IMAGE_${name}`]: value } : environment
}

const name = 'LD_PRELOAD'
