// Reads a TOML file of settings (the defaults, or the user's) and names what does not belong in it.

import { readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { parse, TomlError } from 'smol-toml'
import { describeError, errorCode } from '../errors.ts'
import { ConfigError } from './config-error.ts'
import type { Layer } from './layers.ts'
import { findNearest } from './nearest.ts'
import { allSettings } from './settings.ts'

export function readSettingsFile(file: string, kind: 'default' | 'file'): Layer {
  const layer: Layer = { kind, given: new Map() }
  const cwd = dirname(file)
  for (const [section, rows] of Object.entries(readToml(file, 'configuration file'))) {
    if (!allSettings.some(setting => setting.section === section)) {
      throw unknownName(file, `table [${section}]`, section, new Set(allSettings.map(setting => setting.section)))
    }
    if (!isTable(rows)) {
      throw new ConfigError(`Could not use ${file}: "${section}" is a value, but a table [${section}] was expected.`)
    }
    for (const [name, raw] of Object.entries(rows)) {
      const key = `${section}.${name}`
      if (!allSettings.some(setting => setting.key === key)) {
        throw unknownName(file, `setting "${key}"`, key, new Set(allSettings.map(setting => setting.key)))
      }
      layer.given.set(key, { raw, name: key, source: kind === 'default' ? 'default' : `file ${file}`, cwd })
    }
  }
  return layer
}

/** Reads a TOML file into a plain table. Throws a UserError that names file and line, with exit code 2. */
export function readToml(file: string, what: string): Record<string, unknown> {
  let content: string
  try {
    content = readFileSync(file, 'utf8')
  } catch (cause) {
    const why = errorCode(cause) === 'ENOENT' ? 'there is no such file' : `it cannot be read (${errorCode(cause)})`
    throw new ConfigError(`Could not read the ${what} ${file}: ${why}.`, { cause })
  }
  try {
    return parse(content)
  } catch (cause) {
    // The first line says what is wrong; the others quote the file, where a secret may stand, so there is no cause either.
    const sentence = describeError(cause).split('\n')[0]
    const at = cause instanceof TomlError ? ` in line ${cause.line}` : ''
    throw new ConfigError(`Could not read the ${what} ${file}${at}: ${sentence}.`)
  }
}

function unknownName(file: string, what: string, name: string, known: Iterable<string>): ConfigError {
  const nearest = findNearest(name, known)
  return new ConfigError(`Could not use ${file}: the ${what} is unknown.`, {
    hint: nearest ? `Did you mean "${nearest}"?` : 'All settings are listed in docs/configuration.md.',
  })
}

export function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}
