// Reads of flow runs, put together: while one look is under way, further ones gather and go out as a single request.
// A run is thereby looked at as often as safety asks for, and a burst still costs a fraction of a call each.

import { sleep } from '../async/sleep.ts'
import type { PrefectClient } from '../prefect/client.ts'
import type { FlowRun } from '../prefect/types.ts'
import type { Turns } from './turns.ts'

/** The server refuses more than 200 in one page. */
const pageSize = 200
/** Long enough for several claims to be answered, short beside the time that a burst takes. */
const gatherMs = 200

interface Waiting {
  readonly resolve: (run: FlowRun | undefined) => void
  readonly reject: (error: unknown) => void
}

export class RunReader {
  readonly #client: PrefectClient
  readonly #turns: Turns
  readonly #signal: AbortSignal
  #waiting = new Map<string, Waiting[]>()
  #scheduled = false

  /** The signal ends all reads, for a request is shared by all who wait for it. */
  constructor(client: PrefectClient, turns: Turns, signal: AbortSignal) {
    this.#client = client
    this.#turns = turns
    this.#signal = signal
  }

  /** The run as the server has it after this call was made, or undefined when the server does not know it. */
  read(flowRunId: string): Promise<FlowRun | undefined> {
    return new Promise((resolve, reject) => {
      const waiting = this.#waiting.get(flowRunId) ?? []
      waiting.push({ resolve, reject })
      this.#waiting.set(flowRunId, waiting)
      if (this.#scheduled) return
      this.#scheduled = true
      // The batch is closed only when its turn comes: all that asked until then are in it.
      this.#gather()
        .then(() => this.#turns.take('look', () => this.#readWaiting(), this.#signal))
        .catch(error => {
          const left = this.#close()
          for (const asked of left.values()) for (const one of asked) one.reject(error)
        })
    })
  }

  /** In a burst, one look at several runs costs the server as little as a look at one; a single run waits for nobody. */
  async #gather(): Promise<void> {
    if (this.#turns.isCrowded) await sleep(gatherMs, this.#signal)
  }

  #close(): Map<string, Waiting[]> {
    const batch = this.#waiting
    this.#waiting = new Map()
    this.#scheduled = false
    return batch
  }

  async #readWaiting(): Promise<void> {
    const batch = this.#close()
    try {
      const found = await this.readAll([...batch.keys()])
      for (const [flowRunId, asked] of batch) for (const one of asked) one.resolve(found.get(flowRunId))
    } catch (error) {
      for (const asked of batch.values()) for (const one of asked) one.reject(error)
    }
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
