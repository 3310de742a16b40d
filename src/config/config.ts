// All settings of one start of the program, as one frozen value.
//
// In: the defaults, a TOML file, a Prefect profile, the environment, flags; each hides the ones before it. Out: a Config.
// What cannot be used is refused here, before anything has begun. This is the only room that reads process.env.

import { homedir } from 'node:os'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inheritEnvironment, readOwnEnvironment, readPrefectEnvironment, toCapitals } from './child-environment.ts'
import { ConfigError } from './config-error.ts'
import { type Given, type Layer, readEnvironment, readFlags, readNamed, warnOfNearName } from './layers.ts'
import { type Profile, readProfile } from './profiles.ts'
import { maskWhenPrinted } from './secret.ts'
import { allSettings, type NamedSetting, type Section, type Setting, type settings } from './settings.ts'
import { readSettingsFile } from './settings-file.ts'

type Table = typeof settings
type ValueOf<S> = S extends Setting<infer T> ? T : never

/** Every setting as `config.section.name`; unset optional ones are undefined. */
export type Settings = { readonly [S in Section]: { readonly [N in keyof Table[S]]: ValueOf<Table[S][N]> } }

export interface Config extends Settings {
  /** Every PREFECT_ setting that profile, environment, file or flag sets: what runs must know to reach the same server. */
  readonly prefectEnvironment: Readonly<Record<string, string>>
  /** What a process run gets of our own environment (`process.inherit_env`). */
  readonly inheritedEnvironment: Readonly<Record<string, string>>
  /** Our own environment, for the names that belong to others: DOCKER_HOST, NOTIFY_SOCKET, VIRTUAL_ENV … */
  readonly environment: Readonly<Record<string, string>>
  /** Where each value came from, by key: `default`, `file …`, `profile …`, `environment …`, `flag …`. */
  readonly sources: Readonly<Record<string, string>>
  /** Sentences for the person who starts the program. */
  readonly warnings: readonly string[]
}

export interface ConfigInput {
  /** Texts by the setting's key (`api.url`). */
  readonly flags?: Readonly<Record<string, string | undefined>>
  /** TOML file of `--config`; without it, the one that RIGEL_CONFIG names, if it does. */
  readonly configFile?: string | undefined
  /** A home of our own: the user's Prefect settings, profiles and proxies are not looked at (local trials). */
  readonly isolatedHome?: string | undefined
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly cwd?: string
}

const defaultsFile = fileURLToPath(new URL('../../config/defaults.toml', import.meta.url))

/** Reads the configuration. Throws a ConfigError (exit code 2) that names source, key and what was expected. */
export function readConfig(input: ConfigInput = {}): Config {
  const cwd = input.cwd ?? process.cwd()
  const warnings: string[] = []
  const isolated = input.isolatedHome !== undefined
  const environment = readOwnEnvironment(input.env ?? process.env, isolated)
  const env = toCapitals(environment)
  const configFile = input.configFile ?? env.RIGEL_CONFIG
  const home = isolated ? { 'prefect.home': input.isolatedHome } : {}

  const weak = [readSettingsFile(defaultsFile, 'default')]
  if (configFile) weak.push(readSettingsFile(resolve(cwd, configFile), 'file'))
  const fromEnvironment = readEnvironment(env, cwd, warnings)
  const fromFlags = readFlags({ ...home, ...input.flags }, cwd)

  const homeDirectory = env.HOME ?? homedir()
  const profile = isolated
    ? undefined
    : readActiveProfile([...weak, fromEnvironment, fromFlags], homeDirectory, warnings)
  const layers = stack(weak, profile && readProfileLayer(profile, cwd, warnings), fromEnvironment, fromFlags)
  const { settings, sources, winners } = resolveSettings(layers, homeDirectory)

  const config: Config = {
    ...settings,
    logging: settings.logging.debug ? { ...settings.logging, level: 'DEBUG' } : settings.logging,
    prefectEnvironment: maskWhenPrinted(readPrefectEnvironment({ layers, profile, env, winners })),
    inheritedEnvironment: maskWhenPrinted(inheritEnvironment(environment, settings.process.inheritEnv)),
    environment: maskWhenPrinted({ ...environment }),
    sources,
    warnings,
  }
  return freeze(config)
}

/** Which profile is used must be known before a profile can set anything, so it is settled without one. */
function readActiveProfile(layers: readonly Layer[], homeDirectory: string, warnings: string[]): Profile {
  const { prefect } = resolveSettings(layers, homeDirectory).settings
  const insist = layers.at(-1)?.given.has('prefect.profile') ?? false
  return readProfile({ file: prefect.profilesPath, wanted: prefect.profile, insist }, warnings)
}

function readProfileLayer(profile: Profile, cwd: string, warnings: string[]): Layer {
  const names = new Set(allSettings.flatMap(setting => setting.env))
  const where = `profile ${profile.name} in ${profile.file}`
  for (const name of Object.keys(profile.values)) {
    if (!names.has(name)) warnings.push(...warnOfNearName(name, names, where))
  }
  return readNamed(profile.values, 'profile', () => where, cwd)
}

/** Weakest first. A profile that was named by a flag is stronger than the environment, as in Prefect's own command. */
function stack(weak: readonly Layer[], profile: Layer | undefined, environment: Layer, flags: Layer): readonly Layer[] {
  if (!profile) return [...weak, environment, flags]
  return flags.given.has('prefect.profile')
    ? [...weak, environment, profile, flags]
    : [...weak, profile, environment, flags]
}

interface Resolved {
  readonly settings: Settings
  readonly sources: Readonly<Record<string, string>>
  /** By key: the kind of layer that set it, and the value. */
  readonly winners: ReadonlyMap<string, { readonly layer: Layer['kind']; readonly value: unknown }>
}

function resolveSettings(layers: readonly Layer[], homeDirectory: string): Resolved {
  const settings: Record<string, Record<string, unknown>> = {}
  const sources: Record<string, string> = {}
  const winners = new Map<string, { layer: Layer['kind']; value: unknown }>()
  const variables = new Map([['HOME', homeDirectory]])
  for (const setting of allSettings) {
    const layer = layers.findLast(layer => layer.given.has(setting.key))
    const given = layer?.given.get(setting.key)
    if (!layer || !given) throw new Error(`${setting.key} has no default in ${defaultsFile}`)
    const value = readGiven(setting, given, variables)
    settings[setting.section] = { ...settings[setting.section], [setting.name]: value }
    sources[setting.key] = given.source
    winners.set(setting.key, { layer: layer.kind, value })
    if (typeof value === 'string') for (const name of setting.env) variables.set(name, value)
  }
  // The loop has filled every row of the table with what the row's kind has read, which is what the type says.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return { settings: settings as unknown as Settings, sources, winners }
}

function readGiven(setting: NamedSetting, given: Given, variables: ReadonlyMap<string, string>): unknown {
  const fitting = setting.kind.read(given.raw, { cwd: given.cwd, variables })
  if (fitting) return fitting.value
  const shown = setting.kind.isSecret ? 'has a value that does not fit' : `is ${JSON.stringify(given.raw)}`
  throw new ConfigError(`${given.name} (${given.source}) ${shown}, but ${setting.kind.expected} was expected.`, {
    hint: setting.doc,
  })
}

function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) for (const part of Object.values(value)) freeze(part)
  return Object.freeze(value)
}
