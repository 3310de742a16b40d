// Work that several wait for at once: done once for all of them.
//
// Whoever comes while it is being done must not get its result, for what it looked at may have changed since; all who come
// then share the next round. So a burst of any size costs two rounds.

interface Round<T> {
  readonly controller: AbortController
  readonly start: () => void
  readonly result: Promise<T>
  waiting: number
}

export class SharedWork<T> {
  readonly #rounds = new Map<string, { current: Round<T>; next: Round<T> | undefined }>()

  /**
   * Gives the result of a round of `work` that begins after this call. The work's signal is aborted when nobody waits for it
   * any more. Rejects with what the work rejects with, or with the reason of `signal`.
   */
  async join(key: string, work: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted()
    const rounds = this.#rounds.get(key)
    let round: Round<T>
    if (!rounds) {
      round = makeRound(work)
      this.#begin(key, round)
    } else {
      rounds.next ??= makeRound(work)
      round = rounds.next
    }
    try {
      return await wait(round, signal)
    } finally {
      this.#forget(key, round)
    }
  }

  /** A round that has not begun and that nobody waits for any more is aborted: whoever comes now needs another. */
  #forget(key: string, round: Round<T>): void {
    const rounds = this.#rounds.get(key)
    if (round.waiting === 0 && rounds?.next === round) rounds.next = undefined
  }

  #begin(key: string, round: Round<T>): void {
    this.#rounds.set(key, { current: round, next: undefined })
    const goOn = () => {
      const next = this.#rounds.get(key)?.next
      if (next) this.#begin(key, next)
      else this.#rounds.delete(key)
    }
    round.start()
    // Its failure is for those who wait for it.
    round.result.then(goOn, goOn)
  }
}

function makeRound<T>(work: (signal: AbortSignal) => Promise<T>): Round<T> {
  const controller = new AbortController()
  const started = Promise.withResolvers<void>()
  const result = started.promise.then(() => {
    controller.signal.throwIfAborted()
    return work(controller.signal)
  })
  return { controller, start: started.resolve, result, waiting: 0 }
}

async function wait<T>(round: Round<T>, signal: AbortSignal): Promise<T> {
  round.waiting += 1
  const aborted = Promise.withResolvers<never>()
  const abort = () => aborted.reject(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([round.result, aborted.promise])
  } finally {
    signal.removeEventListener('abort', abort)
    round.waiting -= 1
    if (round.waiting === 0) round.controller.abort(signal.reason)
  }
}
