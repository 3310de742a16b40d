// What rows are made of: medians and percentiles, the columns of the table, and the machine that the figures belong to.

import { readFileSync } from 'node:fs'
import { cpus, loadavg, release, totalmem } from 'node:os'
import process from 'node:process'

/** One line of the table; a cell is a text with its unit. `-` where there is nothing to compare with. */
export interface Row {
  readonly what: string
  readonly prefect: string
  readonly rigel: string
  readonly target: string
}

export function percentile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.floor(share * (values.length - 1))] ?? Number.NaN
}

export function median(values: readonly number[]): number {
  return percentile(values, 0.5)
}

export function round(value: number, digits = 1): string {
  return Number.isNaN(value) ? '-' : value.toFixed(digits)
}

/** The one-minute load average: above the number of cores, times say more of the neighbours than of us. */
export function readLoad(): string {
  return round(loadavg()[0] ?? Number.NaN)
}

export function describeMachine(): string {
  const [cpu] = cpus()
  const memory = `${(totalmem() / 2 ** 30).toFixed(0)} GiB`
  const distribution =
    /^PRETTY_NAME="?([^"\n]*)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? process.platform
  return `${cpus().length} cores (${cpu?.model.trim() ?? 'unknown'}), ${memory}, ${distribution}, Linux ${release()}, Node ${process.version}`
}

export function buildMarkdown(rows: readonly Row[]): string {
  const lines = rows.map(({ what, prefect, rigel, target }) => `| ${what} | ${prefect} | ${rigel} | ${target} |`)
  return ['| what | Prefect 2.20.25 agent | Rigel | target |', '|---|---|---|---|', ...lines].join('\n')
}
