// How results are shown: a table at a terminal, plain columns in a pipe, JSON when it is asked for.

import type { Context } from './context.ts'

export type Cell = string | number | boolean | null | undefined

export function printJson({ stdout }: Context, value: unknown): void {
  stdout.write(`${JSON.stringify(value, undefined, 2)}\n`)
}

/** Shows rows to people, or `values` (by default the rows as objects) to programs. */
export async function printTable(
  context: Context,
  columns: readonly string[],
  rows: readonly (readonly Cell[])[],
): Promise<void> {
  const texts = rows.map(row => row.map(showCell))
  if (context.stdout.isTTY === true) {
    const { default: Table } = await import('cli-table3')
    const table = new Table({ head: [...columns], style: { head: [], border: [] } })
    table.push(...texts)
    context.stdout.write(`${table.toString()}\n`)
    return
  }
  const widths = columns.map((column, at) => Math.max(column.length, ...texts.map(row => row[at]?.length ?? 0)))
  for (const row of [columns.map(column => column.toUpperCase()), ...texts]) {
    const line = row.map((text, at) => text.padEnd(widths[at] ?? 0)).join('  ')
    context.stdout.write(`${line.trimEnd()}\n`)
  }
}

/** Shows one thing: its fields below each other, or as JSON. */
export async function printThing(context: Context, thing: Readonly<Record<string, unknown>>): Promise<void> {
  if (context.format === 'json') return printJson(context, thing)
  const rows = Object.entries(thing).map(([name, value]) => [name, showValue(value)])
  await printTable(context, ['field', 'value'], rows)
}

function showValue(value: unknown): Cell {
  if (value === null || value === undefined) return undefined
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value
  return JSON.stringify(value)
}

/** Texts come from servers and users: what would steer the terminal is taken out. */
function showCell(cell: Cell): string {
  return cell === undefined || cell === null || cell === '' ? '-' : cleanText(String(cell)).replaceAll('\n', ' ')
}

/** Without control characters, except tab and line feed. */
export function cleanText(text: string): string {
  return text.replace(/\p{Cc}/gu, character => (character === '\n' || character === '\t' ? character : ''))
}
