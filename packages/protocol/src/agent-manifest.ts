import { z } from 'zod'
import { agentPlatforms } from './agent-platforms.ts'

const sha256 = z.string().regex(/^[0-9a-f]{64}$/)
/** Below the bundle, with slashes. What goes elsewhere is no bundle. */
const path = z
  .string()
  .max(500)
  .regex(/^(?!\.\.?(\/|$))(?!.*\/\.\.?(\/|$))[^/\0\n]+(\/[^/\0\n]+)*$/)

const bundleFile = z.union([
  z.object({
    path,
    /** The target, relative to the link's own folder. */
    link: z.string().max(500),
  }),
  z.object({
    path,
    mode: z.union([z.literal(0o644), z.literal(0o755)]),
    size: z.int().nonnegative(),
    sha256: sha256.describe('With the interpreter of `/agent`, wherever the file has been relocated to.'),
    interpreter: z
      .object({ offset: z.int().nonnegative(), size: z.int().positive() })
      .optional()
      .describe('Where in the file stands which loader starts it: a path, then zeros.'),
  }),
])

/**
 * `manifest.json` of an agent bundle: the folder that holds all programs of an agent, and runs in every Linux image of its CPU. It lists every other
 * file of the folder. The hash is that of the list, so that it depends on nothing but contents, names and modes: the same on every machine and day
 * that made it from the same parts.
 */
export const agentManifest = z
  .object({
    version: z.literal(1),
    hash: sha256,
    platform: z.enum(agentPlatforms),
    is_patched: z
      .boolean()
      .describe(
        'The programs name the loader and the libraries of the bundle themselves; else it is named to start them.',
      ),
    oz: z.string(),
    node: z.string(),
    ripgrep: z.string(),
    git: z.string().optional().describe('Absent where the bundle has none.'),
    libc: z.string(),
    files: z.array(bundleFile).max(10_000),
    licences: z.array(
      z.object({ component: z.string(), version: z.string().optional(), file: path.describe('Where its terms are.') }),
    ),
  })
  .meta({ id: 'AgentManifest' })
export type AgentManifest = z.infer<typeof agentManifest>
export type BundleFile = AgentManifest['files'][number]
