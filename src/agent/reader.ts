// Reads of flow runs, put together: those that wait for their turn, or can wait for company, go out as a single request.
// A run is thereby looked at as often as safety asks for, and a burst still costs a fraction of a call each.

import { sleep } from '../async/sleep.ts'
import { Wake } from '../async/wake.ts'
import type { PrefectClient } from '../prefect/client.ts'
import type { FlowRun } from '../prefect/types.ts'
import type { Turns } from './turns.ts'

/** The server refuses more than 200 in one page. */
const pageSize = 200
/** Long enough for several claims to be answered, short beside the time that a burst takes. */
const crowdedMs = 200

/**
 * What a look is for: `look` decides whether something may be started, `review` what is to be reported.
 * A review's batch is so small that what follows from it is said within a second or two, before the look grows old.
 */
const mostTogether = { look: pageSize, review: 50 } as const
export type Purpose = keyof typeof mostTogether

interface Waiting {
  readonly resolve: (run: FlowRun | undefined) => void
  readonly reject: (error: unknown) => void
}

interface Batch {
  readonly asked: Map<string, Waiting[]>
  /** Rung by whoever has no time to wait for company. */
  readonly hurry: Wake
}

export class RunReader {
  readonly #client: PrefectClient
  readonly #turns: Turns
  readonly #signal: AbortSignal
  /** Those that still take others along, one for each purpose. */
  readonly #open = new Map<Purpose, Batch>()

  /** The signal ends all reads, for a request is shared by all who wait for it. */
  constructor(client: PrefectClient, turns: Turns, signal: AbortSignal) {
    this.#client = client
    this.#turns = turns
    this.#signal = signal
  }

  /**
   * The run as the server has it after this call was made, or undefined when the server does not know it.
   * `patienceMs`: how long it may wait for others to be asked for with it.
   */
  read(flowRunId: string, purpose: Purpose, patienceMs = 0): Promise<FlowRun | undefined> {
    return new Promise((resolve, reject) => {
      const open = this.#open.get(purpose)
      const batch = open ?? { asked: new Map(), hurry: new Wake() }
      const waiting = batch.asked.get(flowRunId) ?? []
      waiting.push({ resolve, reject })
      batch.asked.set(flowRunId, waiting)
      if (!open) this.#begin(purpose, batch, patienceMs)
      else if (patienceMs === 0) batch.hurry.ring()
      if (batch.asked.size >= mostTogether[purpose]) this.#close(purpose, batch)
    })
  }

  #begin(purpose: Purpose, batch: Batch, patienceMs: number): void {
    this.#open.set(purpose, batch)
    this.#carryOut(purpose, batch, patienceMs).catch(error => {
      this.#close(purpose, batch)
      for (const asked of batch.asked.values()) for (const one of asked) one.reject(error)
    })
  }

  async #carryOut(purpose: Purpose, batch: Batch, patienceMs: number): Promise<void> {
    if (patienceMs > 0) await batch.hurry.wait(patienceMs, this.#signal)
    // In a burst, one look at several runs costs the server as little as a look at one; a single run waits for nobody.
    else if (purpose === 'look' && this.#turns.isCrowded) await sleep(crowdedMs, this.#signal)
    await this.#turns.take(
      purpose,
      async () => {
        this.#close(purpose, batch) // only now: all that asked until its turn came are in it
        const found = await this.readAll([...batch.asked.keys()])
        for (const [flowRunId, asked] of batch.asked) for (const one of asked) one.resolve(found.get(flowRunId))
      },
      this.#signal,
    )
  }

  #close(purpose: Purpose, batch: Batch): void {
    if (this.#open.get(purpose) === batch) this.#open.delete(purpose)
  }

  /** Many runs in as few requests as pages need; those that the server does not know are missing from the answer. */
  async readAll(flowRunIds: readonly string[]): Promise<Map<string, FlowRun>> {
    const found = new Map<string, FlowRun>()
    const [only] = flowRunIds
    if (flowRunIds.length === 1 && only !== undefined) {
      const run = await this.#client.readFlowRun(only, this.#signal)
      if (run) found.set(run.id, run)
      return found
    }
    for (let from = 0; from < flowRunIds.length; from += pageSize) {
      const ids = flowRunIds.slice(from, from + pageSize)
      const runs = await this.#client.readFlowRuns({ flow_runs: { id: { any_: ids } }, limit: pageSize }, this.#signal)
      for (const run of runs) found.set(run.id, run)
    }
    return found
  }
}
