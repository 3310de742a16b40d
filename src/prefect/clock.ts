// How far the server's clock is from ours, from the Date headers of its answers.
//
// Whether a run is due is the server's to say. A Date has whole seconds, and Prefect's server (uvicorn) renews its own by a
// timer, which is late when the server is busy: a Date may be seconds old, but never ahead. So of the answers of the last
// minute the one with the freshest Date is believed.

/** Milliseconds: a Date is cut to the second, and Prefect's server renews its own once a second. */
const STALENESS_MS = 2000
/** Milliseconds. Answers are forgotten after one or two of these. */
const PERIOD_MS = 30_000
/** Milliseconds. A Date that is older than that is no old one: the server's clock was set back. */
const OLDEST_MS = 30_000

interface Range {
  readonly low: number
  readonly high: number
}

const UNKNOWN: Range = { low: Number.NEGATIVE_INFINITY, high: Number.NEGATIVE_INFINITY }

export class ServerClock {
  #periodBegan = Number.NEGATIVE_INFINITY
  #before = UNKNOWN
  #current = UNKNOWN

  /** `sentAt` and `receivedAt` are local times around the answer, in milliseconds. */
  observe(date: string | undefined, sentAt: number, receivedAt: number): void {
    const server = date === undefined ? Number.NaN : Date.parse(date)
    if (Number.isNaN(server)) return
    const range = { low: server - receivedAt, high: server + STALENESS_MS - sentAt }
    if (range.high < this.#known.low - OLDEST_MS) this.#periodBegan = Number.NEGATIVE_INFINITY
    this.#forget(receivedAt)
    this.#current = freshest(this.#current, range)
  }

  get #known(): Range {
    return freshest(this.#before, this.#current)
  }

  #forget(now: number): void {
    const lasted = now - this.#periodBegan
    // Negative when our own clock was set back.
    if (lasted >= 0 && lasted < PERIOD_MS) return
    this.#before = lasted >= 0 && lasted < 2 * PERIOD_MS ? this.#current : UNKNOWN
    this.#current = UNKNOWN
    this.#periodBegan = now
  }

  /** Milliseconds that the server is ahead of us; 0 while the two may well agree. */
  get offsetMs(): number {
    const { low, high } = this.#known
    if (low > 0) return low
    if (high < 0 && high !== Number.NEGATIVE_INFINITY) return high
    return 0
  }

  /**
   * False for a server that seems to be behind by no more than a Date can be old, until that has held for a whole period:
   * one that has just been started on a busy machine may have sent nothing but old ones yet.
   */
  get isCertain(): boolean {
    return this.#known.low > 0 || this.#known.high < -OLDEST_MS || this.#before !== UNKNOWN
  }

  now(): number {
    return Date.now() + this.offsetMs
  }
}

function freshest(one: Range, other: Range): Range {
  return { low: Math.max(one.low, other.low), high: Math.max(one.high, other.high) }
}
