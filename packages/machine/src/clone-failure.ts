/** Why a clone failed, in words for the person who wrote the repository's address. Order matters: the first that fits is taken. */
const causes: { pattern: RegExp; problem: string }[] = [
  {
    pattern: /Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED/i,
    problem: 'the ssh key of its host is not known on this machine (or has changed); add it to known_hosts.',
  },
  {
    pattern:
      /Could not resolve host|Name or service not known|Temporary failure in name resolution|Could not resolve hostname/i,
    problem: 'its host is unknown (the name cannot be resolved).',
  },
  {
    pattern:
      /Permission denied \(|Authentication failed|could not read (Username|Password)|terminal prompts disabled|HTTP Basic: Access denied|returned error: (401|403)/i,
    problem:
      'it asks for a login, and this machine has none for it. (Hosts also answer so for repositories that do not exist.)',
  },
  {
    pattern:
      /repository .* not found|Repository not found|does not exist|does not appear to be a git repository|returned error: 404|project you were looking for could not be found|not a git repository/i,
    problem: 'it does not exist there.',
  },
  { pattern: /dubious ownership/i, problem: 'it belongs to another user of this machine.' },
  {
    pattern: /timed out|Operation too slow|Timeout was reached|timeout/i,
    problem: 'its host did not answer in time.',
  },
  {
    pattern:
      /Connection refused|Failed to connect|Couldn't connect|No route to host|Network is unreachable|Connection reset|unexpected disconnect|early EOF|hung up unexpectedly/i,
    problem: 'the connection to its host could not be made, or broke.',
  },
  { pattern: /SSL|certificate|TLS/i, problem: 'the certificate of its host is not trusted here.' },
]

/** `text` is what git said; credentials must already be masked. */
export function cloneProblem(text: string, { hasTimedOut = false }: { hasTimedOut?: boolean } = {}): string {
  if (hasTimedOut) return 'it took too long.'
  const known = causes.find(({ pattern }) => pattern.test(text))
  const lastWords = text
    .split(/[\r\n]+/)
    .map((line) => line.trim())
    .filter((line) => /^(fatal|error|remote|ssh|ERROR)\b/.test(line))
    .slice(-2)
    .join(' ')
    .slice(0, 300)
  if (!known) return lastWords === '' ? 'git gave no reason.' : `${lastWords}.`
  return lastWords === '' ? known.problem : `${known.problem} (git: ${lastWords})`
}
