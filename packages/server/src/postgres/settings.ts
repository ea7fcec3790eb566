/**
 * The settings of the embedded PostgreSQL: one small machine, one server process with a pool, nobody else. The aim is few
 * processes, little memory and no wake-ups when idle; nothing here trades durability away (fsync, full_page_writes and
 * synchronous_commit keep their defaults).
 *
 * They are written to `postgres.conf` in the data folder at every start and are not meant to be edited. What an operator sets with
 * `ALTER SYSTEM` comes after them and wins.
 */

type Setting = readonly [name: string, value: string, why: string]

const settings: readonly Setting[] = [
  ['listen_addresses', '', 'No TCP: only who may enter the socket folder can even try a password.'],
  ['unix_socket_permissions', '0700', 'The folder is 0700 as well.'],
  ['password_encryption', 'scram-sha-256', ''],
  ['cluster_name', 'openoz', 'Shown by ps.'],

  ['max_connections', '60', 'Pools of a server and a few tools. Each costs memory only while it is open.'],
  [
    'shared_buffers',
    '32MB',
    'The hot tables (queue, leases, ends of logs) are smaller; the page cache holds the rest.',
  ],
  ['work_mem', '4MB', 'Lists are paged by index; nothing sorts much.'],
  ['maintenance_work_mem', '32MB', 'Bounds vacuum and index builds.'],
  ['huge_pages', 'off', 'Not worth taking from whom they were reserved for.'],
  [
    'enable_seqscan',
    'off',
    'Everything is found by an index. A plan that a connection keeps from when a table was small would read all of it when it has grown.',
  ],
  ['jit', 'off', 'All statements are short; compiling them costs milliseconds and megabytes per connection.'],

  ['io_method', 'sync', 'The default keeps three I/O processes; reads here come from memory.'],
  ['max_worker_processes', '2', 'No parallel plans, no extensions with workers.'],
  ['max_parallel_workers', '0', 'Two cores are shared with agents; short statements gain nothing.'],
  ['max_parallel_workers_per_gather', '0', ''],
  ['max_parallel_maintenance_workers', '0', ''],
  ['max_logical_replication_workers', '0', 'Saves the launcher process.'],
  ['wal_level', 'minimal', 'Nobody replicates from it: less is written.'],
  ['max_wal_senders', '0', 'Needed by wal_level minimal.'],

  ['max_wal_size', '512MB', 'Bounds the disk used by a busy log (default 1 GB) and the replay after a crash.'],
  ['checkpoint_timeout', '10min', 'Fewer full page images than at 5 min; max_wal_size still bounds the replay.'],
  ['autovacuum_max_workers', '2', 'The queue tables need one at once; the default of 3 is for bigger machines.'],
  ['autovacuum_naptime', '30s', 'Queue tables churn: twice as often as the default, still no load when idle.'],

  ['timezone', 'UTC', 'The same answers on every machine.'],
  ['log_timezone', 'UTC', ''],
  ['lc_messages', 'C', 'Its messages are read by the program (disk full, left-over processes).'],
  ['logging_collector', 'off', 'It writes to postgres.log directly, so that it needs nobody to read a pipe.'],
  ['log_checkpoints', 'off', 'One line in ten minutes, for ever.'],
  ['log_error_verbosity', 'terse', 'DETAIL and CONTEXT quote rows, and rows hold prompts.'],
  ['log_min_error_statement', 'panic', 'Statements may quote values.'],
]

/** The text of `postgres.conf`. */
export function renderSettings(socketDir: string): string {
  // The list of folders is split at commas unless a name is in double quotes.
  const socketFolders = `"${socketDir.replaceAll('"', '""')}"`
  const lines = [...settings, ['unix_socket_directories', socketFolders, ''] as const].map(
    ([name, value, why]) => `${name} = '${value.replaceAll("'", "''")}'${why && ` # ${why}`}`,
  )
  return `# Written by openoz at every start. Use ALTER SYSTEM to change a setting.\n${lines.join('\n')}\n`
}
