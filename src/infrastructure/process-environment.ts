// The environment of a run that is a process on this machine.
//
// In: the agent's own environment, what of it may be passed on, and the run's variables. Out: the run's, complete. Pure.

/** Of the agent's own variables only these describe runs; the others may carry its secrets. */
const RIGEL_NAMES_FOR_RUNS = new Set(['RIGEL_PYTHON', 'RIGEL_WORKSPACE', 'RIGEL_PARAMETERS_FILE'])

/** systemd's words to the agent alone: a run that heard them could speak in its name (sd_notify(3), sd_listen_fds(3)). */
const SERVICE_NAMES = new Set([
  'NOTIFY_SOCKET',
  'WATCHDOG_PID',
  'WATCHDOG_USEC',
  'LISTEN_FDS',
  'LISTEN_PID',
  'LISTEN_FDNAMES',
])

export interface EnvironmentParts {
  /** The agent's own variables. */
  readonly agent: Readonly<Record<string, string | undefined>>
  /** Which of them a run may see: Prefect's way is `all`. */
  readonly inheritEnv: 'all' | readonly string[]
  /** The run's variables, on top of the agent's. */
  readonly run: Readonly<Record<string, string>>
  readonly unsetEnv: readonly string[]
}

export function buildEnvironment({ agent, inheritEnv, run, unsetEnv }: EnvironmentParts): Record<string, string> {
  const env: Record<string, string> = {}
  for (const name of inheritEnv === 'all' ? Object.keys(agent) : inheritEnv) {
    const value = agent[name]
    if (value !== undefined && mayInherit(name)) env[name] = value
  }
  for (const name of unsetEnv) delete env[name]
  return Object.assign(env, run)
}

function mayInherit(name: string): boolean {
  if (name.startsWith('RIGEL_')) return RIGEL_NAMES_FOR_RUNS.has(name)
  return !SERVICE_NAMES.has(name)
}

/** Set by a shell for itself: a run's own value would not reach the run through the supervisor. */
const SHELL_NAMES = new Set(['IFS', 'PWD', 'OLDPWD', 'PPID', 'OPTIND', 'LINENO', 'PS1', 'PS2', 'PS4', 'SHLVL', '_'])

/** Set by the agent's own shell, and then of no meaning to a run. */
const isShellName = (name: string): boolean => SHELL_NAMES.has(name)

/**
 * Takes apart what a POSIX shell hands down to its children and what it would drop (`a.b`, `npm-x`) or replace.
 * dash and busybox drop every name that is not an identifier.
 */
export function splitEnvironment(
  env: Readonly<Record<string, string>>,
  run: Readonly<Record<string, string>>,
): { readonly plain: Record<string, string>; readonly strange: Record<string, string> } {
  const plain: Record<string, string> = {}
  const strange: Record<string, string> = {}
  for (const [name, value] of Object.entries(env)) {
    const isPlain = /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) && !(isShellName(name) && Object.hasOwn(run, name))
    if (isPlain) plain[name] = value
    else strange[name] = value
  }
  return { plain, strange }
}
