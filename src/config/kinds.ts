// The kinds of value that a setting can have: what a person may write, and what the program gets.
//
// In: a text (environment, flag) or a TOML value (files, profiles). Out: the typed value, or undefined when it does not fit.

import { resolve } from 'node:path'
import * as v from 'valibot'
import { Secret } from './secret.ts'

/** What a path is relative to: the current directory, and values for `${NAME}` in it. */
export interface Place {
  readonly cwd: string
  readonly variables: ReadonlyMap<string, string>
}

export interface Kind<T> {
  /** Completes the sentence "expected …". */
  readonly expected: string
  readonly isSecret: boolean
  readonly isOptional: boolean
  read(raw: unknown, place: Place): { readonly value: T } | undefined
}

function fromSchema<T>(expected: string, schema: v.GenericSchema<unknown, T>): Kind<T> {
  const read = (raw: unknown) => {
    const result = v.safeParse(schema, raw)
    return result.success ? { value: result.output } : undefined
  }
  return { expected, isSecret: false, isOptional: false, read }
}

const nonEmpty = v.pipe(v.string(), v.trim(), v.nonEmpty())
const numeric = v.pipe(v.union([v.number(), v.pipe(nonEmpty, v.transform(Number))]), v.number(), v.finite())

export const text = fromSchema('a text', nonEmpty)

export const url = fromSchema(
  'a URL that starts with http:// or https://',
  v.pipe(nonEmpty, v.url(), v.regex(/^https?:/i)),
)

/** pydantic's spellings of truth, as Prefect accepts them in the environment. */
export const truth = fromSchema(
  'true or false',
  v.union([
    v.boolean(),
    v.pipe(
      v.union([v.pipe(v.string(), v.trim(), v.toLowerCase()), v.pipe(v.number(), v.transform(String))]),
      v.picklist(['1', 'true', 't', 'yes', 'y', 'on', '0', 'false', 'f', 'no', 'n', 'off']),
      v.transform(word => ['1', 'true', 't', 'yes', 'y', 'on'].includes(word)),
    ),
  ]),
)

export function integer(least: number, most = Number.MAX_SAFE_INTEGER): Kind<number> {
  const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`
  return fromSchema(`a whole number ${range}`, v.pipe(numeric, v.integer(), v.minValue(least), v.maxValue(most)))
}

export function decimal(least: number): Kind<number> {
  return fromSchema(`a number of at least ${least}`, v.pipe(numeric, v.minValue(least)))
}

export const seconds = fromSchema('a number of seconds, not negative', v.pipe(numeric, v.minValue(0)))

export const interval = fromSchema('a number of seconds above zero', v.pipe(numeric, v.minValue(0.001)))

export const port = integer(0, 65_535)

export function choice<const T extends readonly string[]>(words: T): Kind<T[number]> {
  return fromSchema(`one of ${words.join(', ')}`, v.pipe(v.string(), v.trim(), v.toLowerCase(), v.picklist(words)))
}

/** Python's level names, or one of its numbers. */
export const logLevel = fromSchema(
  'one of DEBUG, INFO, WARNING, ERROR, CRITICAL',
  v.pipe(
    v.union([v.string(), v.pipe(v.number(), v.transform(String))]),
    v.trim(),
    v.toUpperCase(),
    v.transform(
      word => ({ '10': 'DEBUG', '20': 'INFO', '30': 'WARNING', '40': 'ERROR', '50': 'CRITICAL' })[word] ?? word,
    ),
    v.transform(word => ({ WARN: 'WARNING', FATAL: 'CRITICAL' })[word] ?? word),
    v.picklist(['DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL']),
  ),
)

const words = v.union([
  v.array(v.union([nonEmpty, v.pipe(v.number(), v.transform(String))])),
  v.pipe(
    v.number(),
    v.transform(one => [String(one)]),
  ),
  v.pipe(
    v.string(),
    v.transform(list =>
      list
        .split(',')
        .map(word => word.trim())
        .filter(word => word !== ''),
    ),
  ),
])

/** Prefect's PREFECT_CLIENT_RETRY_EXTRA_CODES: 100 to 599, with commas between. */
export const statusCodes: Kind<readonly number[]> = fromSchema(
  'HTTP status codes from 100 to 599, with commas between',
  v.pipe(words, v.mapItems(Number), v.array(v.pipe(v.number(), v.integer(), v.minValue(100), v.maxValue(599)))),
)

/** The word `all`, or names. */
export const allOrNames: Kind<'all' | readonly string[]> = fromSchema(
  'the word all, or names with commas between',
  v.pipe(
    words,
    v.transform(names => (names.length === 1 && names[0]?.toLowerCase() === 'all' ? 'all' : names)),
  ),
)

const headerTable = v.pipe(
  v.record(nonEmpty, v.string()),
  v.check(value => !Array.isArray(value)),
)

/** HTTP headers: a JSON object in a text (Prefect's way), or a TOML table. */
export const headers: Kind<Readonly<Record<string, string>>> = fromSchema(
  'a JSON object of header names and texts',
  v.union([headerTable, v.pipe(v.string(), v.parseJson(), headerTable)]),
)

/** A path: `~` and `${NAME}` (of settings that stand before it in the table) are put in, and it is made absolute. */
export const path: Kind<string> = {
  expected: 'a path',
  isSecret: false,
  isOptional: false,
  read: (raw, place) => {
    const fitting = text.read(raw, place)
    if (!fitting) return undefined
    const filled = fitting.value.replace(/\$\{(\w+)\}/g, (whole, name: string) => place.variables.get(name) ?? whole)
    return { value: resolve(place.cwd, filled.replace(/^~(?=\/|$)/, place.variables.get('HOME') ?? '~')) }
  },
}

/** May be unset; an empty text says so, and an unset value is undefined. */
export function optional<T>(kind: Kind<T>): Kind<T | undefined> {
  return {
    ...kind,
    isOptional: true,
    read: (raw, place) => (raw === '' ? { value: undefined } : kind.read(raw, place)),
  }
}

export function secret<T>(kind: Kind<T>): Kind<Secret<T> | undefined> {
  return {
    ...kind,
    isSecret: true,
    isOptional: true,
    read: (raw, place) => {
      if (raw === '') return { value: undefined }
      const fitting = kind.read(raw, place)
      return fitting && { value: new Secret(fitting.value) }
    },
  }
}
