// Where values come from: each source becomes a layer of raw values, and a stronger layer hides a weaker one.

import { readFileSync } from 'node:fs'
import { ConfigError } from './config-error.ts'
import { findNearest } from './nearest.ts'
import { allSettings } from './settings.ts'

export interface Given {
  /** As read: a text, or a TOML value. */
  readonly raw: unknown
  /** How the source calls it, for messages: `PREFECT_API_URL`, `--api`, `api.url`. */
  readonly name: string
  /** For people: `environment PREFECT_API_URL`, `file /etc/rigel.toml`. */
  readonly source: string
  /** What a relative path in it is relative to. */
  readonly cwd: string
}

export interface Layer {
  readonly kind: 'default' | 'file' | 'profile' | 'environment' | 'flag'
  /** By the setting's key. */
  readonly given: Map<string, Given>
}

/** Names below RIGEL_ that are no settings: given to runs by the agent, or read by the tests. */
const notSettings = /^RIGEL_(_|TEST_|BENCH_|PREFECT$|CONFIG$|WORKSPACE$|PARAMETERS_FILE$)/

/** Variables with the names of settings become a layer; unknown RIGEL_ names are refused, other people's ignored. */
export function readEnvironment(env: Readonly<Record<string, string>>, cwd: string, warnings: string[]): Layer {
  const names = new Set(allSettings.flatMap(setting => setting.env))
  for (const name of Object.keys(env)) {
    if (names.has(name) || notSettings.test(name)) continue
    if (name.startsWith('RIGEL_')) {
      const nearest = findNearestSetting(name)
      throw new ConfigError(`Could not use the environment: there is no setting ${name}.`, {
        hint: nearest ? `Did you mean ${nearest}?` : 'All settings are listed in docs/configuration.md.',
      })
    }
    warnings.push(...warnOfNearName(name, names, 'environment'))
  }
  return readNamed(env, 'environment', name => `environment ${name}`, cwd)
}

/** By its whole name, or without the section: who writes RIGEL_LIMIT means RIGEL_AGENT_LIMIT. */
function findNearestSetting(name: string): string | undefined {
  const byGuess = new Map<string, string>()
  for (const { env, key } of allSettings) {
    const [first = ''] = env
    byGuess.set(`RIGEL_${key.slice(key.indexOf('.') + 1).toUpperCase()}`, first)
    for (const known of env) byGuess.set(known, known)
  }
  return byGuess.get(findNearest(name, byGuess.keys()) ?? '')
}

/** Takes values that are named as in the environment: the environment itself, and profiles. */
export function readNamed(
  values: Readonly<Record<string, unknown>>,
  kind: 'environment' | 'profile',
  describe: (name: string) => string,
  cwd: string,
): Layer {
  const layer: Layer = { kind, given: new Map() }
  for (const setting of allSettings) {
    const name = setting.env.find(name => values[name] !== undefined)
    if (name === undefined) continue
    const raw = values[name]
    // Container tools pass unset variables as empty ones; only a setting that can be unset takes them seriously.
    if (raw === '' && !setting.kind.isOptional) continue
    layer.given.set(setting.key, { raw, name, source: describe(name), cwd })
  }
  return layer
}

/**
 * Other PREFECT_ names belong to other versions of Prefect and are none of our business, unless they are one letter
 * away from a setting: then somebody wonders why it has no effect.
 */
export function warnOfNearName(name: string, known: Iterable<string>, where: string): string[] {
  if (!name.startsWith('PREFECT_')) return []
  const nearest = findNearest(name, known, 1)
  return nearest ? [`${name} (${where}) is not a setting; did you mean ${nearest}?`] : []
}

/** Flags by the setting's key; the flag of a secret names a file that holds it. */
export function readFlags(flags: Readonly<Record<string, string | undefined>>, cwd: string): Layer {
  const layer: Layer = { kind: 'flag', given: new Map() }
  for (const setting of allSettings) {
    const text = flags[setting.key]
    if (text === undefined) continue
    const raw = setting.kind.isSecret ? readSecretFile(setting.flag, text) : text
    layer.given.set(setting.key, { raw, name: setting.flag, source: `flag ${setting.flag}`, cwd })
  }
  return layer
}

function readSecretFile(flag: string, file: string): string {
  try {
    return readFileSync(file, 'utf8').trim()
  } catch (cause) {
    throw new ConfigError(`Could not read the file ${file} that ${flag} names.`, { cause })
  }
}
