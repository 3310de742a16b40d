// The connections to one host, each with one request at a time. Instead of undici's Pool behind its proxy agent, which look
// for a free connection among all, and for a proxy by parsing the address, for each request: a quarter of its time.

import type { Client } from 'undici'

export class HttpLanes {
  readonly #open: () => Client
  readonly #connections: number
  readonly #all: Client[] = []
  readonly #free: Client[] = []
  readonly #waiting = new Set<(client: Client) => void>()

  constructor(open: () => Client, connections: number) {
    this.#open = open
    this.#connections = connections
  }

  /** A connection that is free now, the one that was used last before others; undefined: all are busy. */
  take(): Client | undefined {
    const free = this.#free.pop()
    if (free || this.#all.length >= this.#connections) return free
    const opened = this.#open()
    this.#all.push(opened)
    return opened
  }

  /** Waits for one. Rejects with the signal's reason. */
  next(signal: AbortSignal): Promise<Client> {
    return new Promise((resolve, reject) => {
      const give = (client: Client) => {
        signal.removeEventListener('abort', leave)
        resolve(client)
      }
      const leave = () => {
        this.#waiting.delete(give)
        reject(signal.reason)
      }
      signal.addEventListener('abort', leave, { once: true })
      this.#waiting.add(give)
    })
  }

  /** Each that was taken, once: when its request has ended in one way or the other. */
  release(client: Client): void {
    const [first] = this.#waiting
    if (!first) {
      this.#free.push(client)
      return
    }
    this.#waiting.delete(first)
    first(client)
  }

  /** Cuts what is under way. */
  async close(): Promise<void> {
    await Promise.all(this.#all.map(client => client.destroy()))
  }
}
