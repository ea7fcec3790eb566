import type { ErrorSpec } from './error-spec.ts'

/** What becomes of the control plane's database. Part of the registry in `errors.ts`. */
export const databaseErrors = {
  database_unreachable: {
    status: 503,
    platform: 'resource_unavailable',
    retryable: true,
    title: 'Database unreachable',
    message: 'The database cannot be reached: {problem}.',
    remedy: 'Check DATABASE_URL and that PostgreSQL is running.',
  },
  database_down: {
    status: 503,
    platform: 'resource_unavailable',
    retryable: true,
    title: 'Database down',
    message: 'The database of this control plane does not run: {problem}.',
    remedy:
      'The control plane starts it again by itself. If that goes on, its log says why, and so does `postgres.log` in its data folder.',
  },
  database_full: {
    status: 503,
    platform: 'resource_unavailable',
    retryable: true,
    title: 'Database full',
    message: 'The database has no room to write: {problem}.',
    remedy: 'Free space on the disk of PostgreSQL; what waits goes on by itself then.',
  },
  database_too_old: {
    status: 503,
    platform: 'operation_not_supported',
    retryable: false,
    title: 'PostgreSQL too old',
    message: 'The database server is PostgreSQL {found}; at least {needed} is needed.',
    remedy: 'Upgrade it, or use the embedded one (no DATABASE_URL).',
  },
  database_too_new: {
    status: 503,
    platform: 'conflict',
    retryable: false,
    title: 'Database newer than the program',
    message: 'The database is at schema version {found}; this program knows versions up to {known}.',
    remedy: 'Start the newer program that wrote it.',
  },
  migration_changed: {
    status: 503,
    platform: 'conflict',
    retryable: false,
    title: 'Migration differs',
    message: 'Migration {version} in the database is not the one that this program brings.',
    remedy: 'Start the program that made this database.',
  },
} as const satisfies Record<string, ErrorSpec>

/** The database is away, and comes back: what was asked may succeed later. */
export const databaseAwayCodes = [
  'database_unreachable',
  'database_down',
  'database_full',
] as const satisfies (keyof typeof databaseErrors)[]
