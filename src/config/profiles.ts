// Prefect's profiles: named sets of settings in one TOML file, one of them active.
//
// The rules are those of 2.20 (context.py, settings.py) with the profiles that 3.x brings along: the user's file lies over
// the built-in profiles, and an unknown profile means `default` with a warning, except when it was asked for by a flag.

import { existsSync } from 'node:fs'
import { ConfigError } from './config-error.ts'
import { findNearest } from './nearest.ts'
import { isTable, readToml } from './settings-file.ts'

/** Known without a file: 2.x has `default`, 3.x the others. Those without an API URL mean Python's own server in the process. */
const builtIn: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  default: {},
  ephemeral: {},
  test: {},
  cloud: {},
  local: { PREFECT_API_URL: 'http://127.0.0.1:4200/api' },
}

export interface Profile {
  readonly name: string
  readonly file: string
  /** As written, by names in capital letters. */
  readonly values: Readonly<Record<string, unknown>>
}

/**
 * Reads the profile `wanted`, else the file's active one, else `default`.
 * `insist`: an unknown `wanted` is refused instead of warned about.
 */
export function readProfile(
  { file, wanted, insist }: { file: string; wanted: string | undefined; insist: boolean },
  warnings: string[],
): Profile {
  const { active, profiles } = existsSync(file) ? readToml(file, 'profiles file') : {}
  const own = isTable(profiles) ? profiles : {}
  const name = wanted ?? (typeof active === 'string' && active !== '' ? active : 'default')
  const values = own[name] ?? builtIn[name]
  if (values === undefined) {
    const nearest = findNearest(name, new Set([...Object.keys(own), ...Object.keys(builtIn)]))
    const hint = nearest ? `Did you mean "${nearest}"?` : `Profiles are read from ${file}.`
    if (insist) throw new ConfigError(`There is no profile "${name}".`, { hint })
    warnings.push(`there is no profile "${name}"; the profile "default" is used. ${hint}`)
    return { name: 'default', file, values: readValues(own.default ?? {}, 'default', file) }
  }
  return { name, file, values: readValues(values, name, file) }
}

function readValues(values: unknown, name: string, file: string): Record<string, unknown> {
  if (!isTable(values)) {
    throw new ConfigError(`Could not read the profiles file ${file}: "profiles.${name}" is not a table.`)
  }
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key.toUpperCase(), value]))
}
