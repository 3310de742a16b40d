// Lines of output that wait for the API: first in, first out, and never more of them than the bound. PURE but for its memory.

/** One line as the API takes it. */
export interface Entry {
  readonly name: string
  readonly level: number
  readonly message: string
  readonly timestamp: string
  readonly flow_run_id: string
}

/** What an entry costs beside its message, in a request as well as in memory: its other fields and their names. */
const entryCost = 150

export class Backlog {
  readonly #most: number
  #entries: Entry[] = []
  /** Those before it are gone: taking the first out of a long array moves all the others, each time. */
  #first = 0
  #cost = 0

  /** `most`: characters that may wait, those around the messages counted in. */
  constructor(most: number) {
    this.#most = most
  }

  get length(): number {
    return this.#entries.length - this.#first
  }

  get cost(): number {
    return this.#cost
  }

  /** Gives how many of the oldest had to make room. */
  add(entry: Entry): number {
    this.#entries.push(entry)
    this.#cost += costOf(entry)
    let dropped = 0
    for (; this.#cost > this.#most; dropped++) this.#shift()
    return dropped
  }

  /** Takes out the oldest, of at most this cost together, but one at least if there is one. */
  take(most: number): Entry[] {
    const taken: Entry[] = []
    let left = most
    for (let next = this.#entries[this.#first]; next; next = this.#entries[this.#first]) {
      left -= costOf(next)
      if (left < 0 && taken.length > 0) break
      taken.push(next)
      this.#shift()
    }
    return taken
  }

  #shift(): void {
    this.#cost -= costOf(this.#entries[this.#first++])
    if (this.#first <= this.length) return
    this.#entries = this.#entries.slice(this.#first)
    this.#first = 0
  }
}

function costOf(entry: Entry | undefined): number {
  return entry ? entryCost + entry.message.length : 0
}
