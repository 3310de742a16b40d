// Reads what the user gave on the command line into the values that a command works with.

import * as v from 'valibot'
import { ConfigError } from '../config/config-error.ts'
import { isTable } from '../config/settings-file.ts'

/** Options as they were typed, by camelCase name: a text, several texts, or true for a switch. */
export type Options = Readonly<Record<string, unknown>>

/** What a command was called with. */
export interface Call {
  readonly args: readonly string[]
  readonly options: Options
}

/** Throws a ConfigError that names the option. */
export function readOptions<T>(schema: v.GenericSchema<unknown, T>, options: Options): T {
  const result = v.safeParse(schema, options)
  if (result.success) return result.output
  const [issue] = result.issues
  const name = (v.getDotPath(issue) ?? '').replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)
  throw new ConfigError(`Could not use --${name}: ${issue.message}.`)
}

export const wholeNumber = (least: number) =>
  v.pipe(
    v.string(),
    v.transform(Number),
    v.check(value => Number.isInteger(value) && value >= least, `expected a whole number of at least ${least}`),
  )

export const texts = v.optional(v.array(v.string()), [])
export const text = v.optional(v.string())
/** A JSON object or YAML table. valibot's own record takes lists too, and drops keys such as `constructor`. */
export const table = v.custom<Record<string, unknown>>(isTable, 'must be a table of fields')
export const isGiven = v.optional(v.boolean(), false)

/** The one argument that the command line demands; it is there, or the command would not have been called. */
export function firstArgument({ args }: Call): string {
  const [first] = args
  if (first === undefined) throw new ConfigError('An argument is missing.')
  return first
}

/** The texts of an option that may be given many times. */
export function readTexts(value: unknown): readonly string[] {
  return v.parse(texts, value)
}

export function readSwitch(value: unknown): boolean {
  return v.parse(isGiven, value)
}
