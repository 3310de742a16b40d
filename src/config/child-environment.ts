// What runs get to know of the settings, and what they get of the agent's own environment.

import type { Layer } from './layers.ts'
import type { Profile } from './profiles.ts'
import { Secret } from './secret.ts'
import { allSettings } from './settings.ts'

interface Known {
  readonly layers: readonly Layer[]
  readonly profile: Profile | undefined
  /** With names in capital letters. */
  readonly env: Readonly<Record<string, string>>
  readonly winners: ReadonlyMap<string, { readonly layer: Layer['kind']; readonly value: unknown }>
}

/**
 * The base environment of Prefect's agents: every setting that profile or environment set explicitly, as Python would
 * print it (`True`), also those that we do not know. What our own file or a flag says about home and API is added, for
 * the engine must talk to the same server.
 */
export function readPrefectEnvironment({ layers, profile, env, winners }: Known): Record<string, string> {
  const fromProfile = pickPrefectNames(profile?.values ?? {})
  const fromEnvironment = pickPrefectNames(env)
  const isProfileStronger =
    layers.findIndex(layer => layer.kind === 'profile') > layers.findIndex(layer => layer.kind === 'environment')
  const result = isProfileStronger ? { ...fromEnvironment, ...fromProfile } : { ...fromProfile, ...fromEnvironment }
  for (const setting of allSettings) {
    const winner = winners.get(setting.key)
    const name = setting.env[0]
    if (!winner || !name || !isForRuns(name) || (setting.section !== 'api' && setting.key !== 'prefect.home')) continue
    if (winner.layer !== 'file' && winner.layer !== 'flag') continue
    if (winner.value === undefined) delete result[name]
    else result[name] = toPythonText(winner.value instanceof Secret ? winner.value.reveal() : winner.value)
  }
  return result
}

/** Not PREFECT__…, which is private between agent and engine, and not the choice of a profile, which is made. */
function isForRuns(name: string): boolean {
  return /^PREFECT_(?!_)/.test(name) && name !== 'PREFECT_PROFILE' && name !== 'PREFECT_PROFILES_PATH'
}

function pickPrefectNames(values: Readonly<Record<string, unknown>>): Record<string, string> {
  const picked = Object.entries(values).filter(([name, value]) => isForRuns(name) && value !== '')
  return Object.fromEntries(picked.map(([name, value]) => [name, toPythonText(value)]))
}

function toPythonText(value: unknown): string {
  if (typeof value === 'string') return value
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (Array.isArray(value)) return value.join(',')
  return value instanceof Date ? value.toISOString() : JSON.stringify(value)
}

/** Belongs to the service manager's talk with the agent; a run that inherits it could speak in the agent's name. */
const agentOnly = /^(NOTIFY_SOCKET|WATCHDOG_(USEC|PID)|LISTEN_(FDS|PID|FDNAMES)|RIGEL_.*(KEY|SECRET|PASSWORD|TOKEN).*)$/

/** The agent's own environment as far as process runs get it; `names` limits it. */
export function inheritEnvironment(
  environment: Readonly<Record<string, string>>,
  names: 'all' | readonly string[],
): Record<string, string> {
  const isWanted = (name: string) => !agentOnly.test(name) && (names === 'all' || names.includes(name))
  return Object.fromEntries(Object.entries(environment).filter(([name]) => isWanted(name)))
}

/** What ties to the user's own Prefect and to an agent in service: left out when everything is to be our own. */
const userOwn =
  /^(PREFECT_.*|(HTTP|HTTPS|ALL|NO)_PROXY|RIGEL_(CONFIG|STATE_DIR|CACHE_DIR|AGENT_NAME|SERVER_DATABASE_PATH))$/i

/** The environment without holes; `isolated` also leaves out what is the user's own. */
export function readOwnEnvironment(
  env: Readonly<Record<string, string | undefined>>,
  isolated: boolean,
): Record<string, string> {
  const result: Record<string, string> = {}
  for (const [name, value] of Object.entries(env)) {
    if (value !== undefined && !(isolated && userOwn.test(name))) result[name] = value
  }
  return result
}

/** Prefect reads its names in any case; of two spellings the capital one counts, for proxies the small one (as in curl). */
export function toCapitals(environment: Readonly<Record<string, string>>): Record<string, string> {
  const result: Record<string, string> = {}
  for (const [name, value] of Object.entries(environment)) {
    const capital = name.toUpperCase()
    const isStronger = capital.endsWith('_PROXY') ? name !== capital : name === capital
    if (isStronger || result[capital] === undefined) result[capital] = value
  }
  return result
}
