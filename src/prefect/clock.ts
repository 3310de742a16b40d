// How far the server's clock is from ours, from the Date headers of its answers.
//
// Whether a run is due is the server's to say. A Date has whole seconds, so each answer gives only a range; ranges are
// intersected until one contradicts the others (a clock was set), which starts anew.

/** Milliseconds: a Date is cut to the second, and Prefect's server renews its own once a second. */
const STALENESS_MS = 2000

export class ServerClock {
  #low = Number.NEGATIVE_INFINITY
  #high = Number.POSITIVE_INFINITY

  /** `sentAt` and `receivedAt` are local times around the answer, in milliseconds. */
  observe(date: string | undefined, sentAt: number, receivedAt: number): void {
    const server = date === undefined ? Number.NaN : Date.parse(date)
    if (Number.isNaN(server)) return
    const low = server - receivedAt
    const high = server + STALENESS_MS - sentAt
    const isConsistent = low <= this.#high && high >= this.#low
    this.#low = isConsistent ? Math.max(low, this.#low) : low
    this.#high = isConsistent ? Math.min(high, this.#high) : high
  }

  /** Milliseconds that the server is ahead of us; 0 while the two may well agree. */
  get offsetMs(): number {
    if (this.#low > 0) return this.#low
    if (this.#high < 0) return this.#high
    return 0
  }

  now(): number {
    return Date.now() + this.offsetMs
  }
}
