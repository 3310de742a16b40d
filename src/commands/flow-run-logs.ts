// The log lines of a flow run, and of its tasks, in order and each once, also while more are coming.

import { createHash } from 'node:crypto'
import type { PrefectClient } from '../prefect/client.ts'
import type { Log } from '../prefect/types.ts'
import type { Output } from './context.ts'
import { cleanText } from './output.ts'

const PAGE_SIZE = 200
/** Engines send lines in batches, every 2 s by default, so a line may come later than a younger one of another process. */
const OVERLAP_MS = 30_000

export class LogReader {
  readonly #flowRunId: string
  /** What was given out of the last half minute; older lines are not asked for again. */
  #known = new Map<string, number>()
  #latest = Number.NEGATIVE_INFINITY

  constructor(flowRunId: string) {
    this.#flowRunId = flowRunId
  }

  /** Lines that were not given out yet, oldest first. */
  async readNew(client: PrefectClient, signal: AbortSignal): Promise<Log[]> {
    const after = Number.isFinite(this.#latest) ? new Date(this.#latest - OVERLAP_MS).toISOString() : undefined
    const logs = {
      flow_run_id: { any_: [this.#flowRunId] },
      ...(after === undefined ? {} : { timestamp: { after_: after } }),
    }
    const fresh: Log[] = []
    for (let offset = 0; ; offset += PAGE_SIZE) {
      const page = await client.readLogs({ logs, limit: PAGE_SIZE, offset, sort: 'TIMESTAMP_ASC' }, signal)
      fresh.push(...page.filter(line => this.#note(line)))
      if (page.length < PAGE_SIZE) break
    }
    this.#known = new Map([...this.#known].filter(([, time]) => time >= this.#latest - 2 * OVERLAP_MS))
    return fresh
  }

  /** False for a line that was given out before. Logs have no id that all servers tell. */
  #note(line: Log): boolean {
    const key = createHash('sha256').update(JSON.stringify(line)).digest('base64')
    if (this.#known.has(key)) return false
    const time = Date.parse(line.timestamp) || 0
    this.#known.set(key, time)
    this.#latest = Math.max(this.#latest, time)
    return true
  }
}

/** Python's level numbers. */
const LEVELS: readonly (readonly [number, string])[] = [
  [50, 'CRITICAL'],
  [40, 'ERROR'],
  [30, 'WARNING'],
  [20, 'INFO'],
  [0, 'DEBUG'],
]

export function writeLogs(output: Output, lines: readonly Log[]): void {
  for (const { timestamp, level, name, message } of lines) {
    const word = LEVELS.find(([least]) => level >= least)?.[1] ?? 'DEBUG'
    const clock = timestamp.slice(11, 23).padEnd(12)
    output.write(`${clock} ${word.padEnd(7)} ${cleanText(name)} | ${cleanText(message)}\n`)
  }
}
