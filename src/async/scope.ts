// Structured concurrency: work that is spawned here has an owner, and its owner waits for it.
//
// In: async functions. Out: one promise for all of them. The first failure aborts the scope's signal and is thrown by
// `join`, so a bug is never swallowed by a promise that nobody awaits.

export class Scope implements AsyncDisposable {
  readonly #controller = new AbortController()
  readonly #running = new Set<Promise<void>>()
  #failure: { error: unknown } | undefined
  /** Aborted when the scope is cancelled, a child has failed, or the parent's signal is aborted. */
  readonly signal: AbortSignal

  constructor(parent?: AbortSignal) {
    this.signal = parent ? AbortSignal.any([parent, this.#controller.signal]) : this.#controller.signal
  }

  get size(): number {
    return this.#running.size
  }

  spawn(work: (signal: AbortSignal) => Promise<void>): void {
    const running = work(this.signal)
      .catch(error => {
        this.#failure ??= { error }
        this.#controller.abort(error)
      })
      .finally(() => this.#running.delete(running))
    this.#running.add(running)
  }

  cancel(reason?: unknown): void {
    this.#controller.abort(reason)
  }

  /** Waits until everything spawned so far, and by it, has ended. Throws the first failure. */
  async join(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running)
    if (this.#failure) throw this.#failure.error
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel()
    await this.join()
  }
}
