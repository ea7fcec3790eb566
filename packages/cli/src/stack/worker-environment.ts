/**
 * What a worker that we start inherits. A list of what it may have, not of what it must not: the control plane's environment holds the keys of
 * model providers and databases, under names that nobody can list.
 */
const allowed = [
  /^(PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|TZ|TERM|COLORTERM|COLUMNS|NO_COLOR|FORCE_COLOR)$/,
  /^LC_/,
  // Windows writes names as it likes, `Path` among them.
  /^(Path|TMPDIR|TEMP|TMP|SystemRoot|SystemDrive|windir|ComSpec|PATHEXT|USERPROFILE|APPDATA|LOCALAPPDATA|ProgramFiles(\(x86\))?)$/i,
  /^XDG_(CONFIG|DATA|STATE|CACHE|RUNTIME)_/,
  /^(https?|no|all)_proxy$/i,
  /^(NODE_EXTRA_CA_CERTS|OZ_CA_FILE|SSL_CERT_FILE|SSL_CERT_DIR)$/,
  // With its own user's logins the worker mirrors repositories.
  /^(SSH_AUTH_SOCK|GIT_SSH|GIT_SSH_COMMAND|GIT_SSL_CAINFO|OZ_GIT_MIRRORS)$/,
  /^GIT_CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+)$/,
  /^OTEL_/,
  /^DOCKER_(HOST|CONTEXT|CONFIG|CERT_PATH|TLS_VERIFY|API_VERSION)$/,
]

export function workerEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => allowed.some((pattern) => pattern.test(name))))
}
