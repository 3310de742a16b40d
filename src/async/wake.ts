// A bell between loops: who waits goes on at once when it is rung, also if it was rung just before.

import { sleep } from './sleep.ts'

export class Wake {
  #bell = new AbortController()

  ring(): void {
    this.#bell.abort()
  }

  /** Waits until the bell is rung, `ms` have passed, or the signal is aborted; never throws. One waiter at a time. */
  async wait(ms: number, signal: AbortSignal): Promise<void> {
    await sleep(ms, AbortSignal.any([signal, this.#bell.signal]))
    this.#bell = new AbortController()
  }
}
