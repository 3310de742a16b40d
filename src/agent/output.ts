// Where the lines of a run go: to the agent's own terminal or log with the run's name, and, for a plain command that has
// nobody else to do it, to the Prefect API in batches.

import { cutText } from '../cut-text.ts'
import type { Logger } from '../logger.ts'
import type { PrefectClient } from '../prefect/client.ts'
import { Backlog, type Entry } from './backlog.ts'
import type { RunRecord } from './record.ts'
import type { Turns } from './turns.ts'

/** Prefect's own handler sends every 2 s (PREFECT_LOGGING_TO_API_BATCH_INTERVAL). */
const batchIntervalMs = 2_000
/**
 * Of one request, in characters: below the 4,000,000 bytes of PREFECT_LOGGING_TO_API_BATCH_SIZE in any script, and also for
 * control characters, each of which JSON spells with six.
 */
const batchCharacters = 600_000
/** Prefect Cloud takes no longer message; see logging of 3.x. */
const messageCharacters = 24_000
/** What may wait while the API is away; then the oldest lines make room, and a line says how many. */
const waitingCharacters = 8_000_000
/** Python's number for INFO. */
const infoLevel = 20

export interface OutputOptions {
  /** Takes a line for people, or several, without the last one's end; undefined when lines go to the logger instead. */
  readonly print: ((line: string) => void) | undefined
  /** PREFECT_LOGGING_TO_API_ENABLED. */
  readonly toApi: boolean
}

export interface RunOutput {
  readonly write: (lines: readonly string[]) => void
  /** The run has ended: what waits is sent soon. */
  readonly close: () => void
}

export class OutputRelay {
  readonly #client: PrefectClient
  readonly #turns: Turns
  readonly #options: OutputOptions
  readonly #logger: Logger
  readonly #signal: AbortSignal
  readonly #waiting = new Backlog(waitingCharacters)
  #dropped = 0
  #timer: NodeJS.Timeout | undefined
  #sending: Promise<void> | undefined

  /** The signal ends the sending of what still waits. */
  constructor(client: PrefectClient, turns: Turns, options: OutputOptions, logger: Logger, signal: AbortSignal) {
    this.#client = client
    this.#turns = turns
    this.#options = options
    this.#logger = logger
    this.#signal = signal
  }

  open(record: RunRecord): RunOutput {
    const log = this.#logger.child({ flow_run: record.flowRunName })
    const isSent = this.#options.toApi && record.reports === 'agent'
    return {
      write: lines => {
        // At once, for each call of it is a write to the terminal or file.
        if (this.#options.print) this.#options.print(lines.map(line => `${record.flowRunName} | ${line}`).join('\n'))
        else for (const line of lines) log.info({ line }, 'output')
        if (isSent) this.#add(record.flowRunId, lines)
      },
      close: () => {
        if (isSent && this.#waiting.length > 0) this.#schedule(0)
      },
    }
  }

  /** Sends all that waits; gives up when the signal ends it. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    await this.#sending
    await this.#send()
  }

  #add(flowRunId: string, lines: readonly string[]): void {
    const fields = {
      name: 'prefect.flow_runs',
      level: infoLevel,
      timestamp: this.#client.serverNow().toISOString(),
      flow_run_id: flowRunId,
    }
    for (const line of lines) {
      let rest = line
      do {
        const message = cutText(rest, messageCharacters)
        this.#dropped += this.#waiting.add({ ...fields, message })
        rest = rest.slice(message.length)
      } while (rest !== '')
    }
    if (this.#waiting.length > 0) this.#schedule(this.#waiting.cost >= batchCharacters ? 0 : batchIntervalMs)
  }

  #schedule(inMs: number): void {
    if (this.#sending || (this.#timer && inMs > 0)) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#sending = this.#send().finally(() => {
        this.#sending = undefined
        if (this.#waiting.length > 0) this.#schedule(batchIntervalMs)
      })
    }, inMs)
  }

  async #send(): Promise<void> {
    while (this.#waiting.length > 0 && !this.#signal.aborted) {
      const batch = this.#takeBatch()
      try {
        await this.#turns.take('note', () => this.#client.createLogs(batch, this.#signal), this.#signal)
      } catch (error) {
        if (this.#signal.aborted) return
        // Logs are a courtesy: they must neither hold up a run nor be sent twice after an answer that was lost.
        this.#dropped += batch.length
        this.#logger.debug({ err: error, lines: batch.length }, 'could not send output to the API')
        return
      }
    }
  }

  #takeBatch(): Entry[] {
    const batch = this.#waiting.take(batchCharacters)
    const [first] = batch
    if (this.#dropped > 0 && first) {
      batch.unshift({
        ...first,
        message: `rigel: ${this.#dropped} earlier lines were dropped, for the API did not take them`,
      })
      this.#dropped = 0
    }
    return batch
  }
}
