// Words that Prefect's command and ours take and commander would not: they become the long options that it knows.
//
// In: an argument vector. Out: the same with these words spelt out. Pure.

import { allSettings } from '../config/settings.ts'
import type { CommandRow, OptionRow } from './command-row.ts'
import { commands } from './commands.ts'

export const outputForms = ['table', 'json']

const programFlags = ['--help', '--version', '--config', '--profile', '--debug', '--output']

export function spellOut(argv: readonly string[]): readonly string[] {
  const row = findRow(argv)
  if (!row) return argv
  return spellFlags(argv.map(spellWord(argv, row.options ?? [])), row)
}

/** The row whose words come first in a call. */
function findRow(argv: readonly string[]): CommandRow | undefined {
  const places = commands.map(row => {
    const words = row.path.split(' ')
    return { row, at: argv.findIndex((_, start) => words.every((word, offset) => argv[start + offset] === word)) }
  })
  return places.filter(({ at }) => at >= 0).toSorted((one, other) => one.at - other.at)[0]?.row
}

function readLongName({ flags }: OptionRow): string {
  return /--[\w-]+/.exec(flags)?.[0] ?? flags
}

/** `-sb` is `--storage-block`; `-o FILE` is `--out FILE` where that is what Prefect's command means. */
function spellWord(argv: readonly string[], options: readonly OptionRow[]) {
  const names = new Map(
    options.flatMap(option => (option.aliases ?? []).map(alias => [alias, readLongName(option)] as const)),
  )
  const output = options.find(option => option.isOutput)
  return (word: string, at: number): string => {
    const [name, value] = splitFlag(word)
    const given = value ?? argv[at + 1]
    const isFile = (name === '-o' || name === '--output') && given !== undefined && !outputForms.includes(given)
    const long = output && isFile ? readLongName(output) : names.get(name)
    if (long === undefined) return word
    return value === undefined ? long : `${long}=${value}`
  }
}

/** `--bucket-path b/flows` is `--field bucket-path=b/flows`; with nothing behind it a flag is true. */
function spellFlags(argv: readonly string[], row: CommandRow): readonly string[] {
  const any = row.options?.find(option => option.isAnyFlag)
  if (!any) return argv
  const known = new Set([
    ...programFlags,
    ...(row.options ?? []).map(readLongName),
    ...allSettings.filter(({ section }) => row.settings.some(own => own === section)).map(({ flag }) => flag),
  ])
  const words: string[] = []
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at] ?? ''
    const [name, value] = splitFlag(word)
    if (!/^--\w/.test(word) || known.has(name)) {
      words.push(word)
      continue
    }
    const next = argv[at + 1]
    const isSwitch = value === undefined && (next === undefined || /^--\w/.test(next))
    words.push(readLongName(any), `${name.slice(2)}=${value ?? (isSwitch ? 'true' : next)}`)
    if (value === undefined && !isSwitch) at++
  }
  return words
}

/** `--name=value` in two; the value is undefined where there is none. */
function splitFlag(word: string): readonly [string, string | undefined] {
  const at = word.indexOf('=')
  return at < 0 ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)]
}
