// The body of an answer while it arrives: as a stream that holds the server back, or all at once.

import { StorageError } from './storage.ts'

/** The two verbs of undici's controller that are needed here. */
export interface Flow {
  pause(): void
  resume(): void
  abort(reason: Error): void
}

/** More than this is not gathered ahead of a slow reader. */
const aheadBytes = 256 * 1024
/** Longest text that is read for people or parsed: a page of a listing is about 1 MiB. */
const maxTextBytes = 64 * 1024 * 1024

export class HttpBody implements AsyncIterable<Uint8Array> {
  readonly #flow: Flow
  #chunks: Buffer[] = []
  #ahead = 0
  #ended = false
  #error: Error | undefined
  #wake: (() => void) | undefined
  /** Beyond it the server has to wait. */
  #limit = aheadBytes
  #gathers = false

  constructor(flow: Flow) {
    this.#flow = flow
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#ahead += chunk.length
    const isFull = this.#ahead > this.#limit
    if (isFull) this.#flow.pause()
    if (isFull || !this.#gathers) this.#wake?.()
  }

  end(): void {
    this.#ended = true
    this.#wake?.()
  }

  fail(error: Error): void {
    this.#error = error
    this.#ended = true
    this.#wake?.()
  }

  /**
   * Everything at once, but of what is longer than `limit` only its beginning, which is longer than that as well. Rejects when
   * the connection is cut before the end.
   */
  async bytes(limit = maxTextBytes): Promise<Buffer> {
    this.#gathers = true
    this.#limit = limit
    this.#flow.resume()
    while (!this.#ended && this.#ahead <= limit) await this.#changed()
    if (!this.#ended) this.cancel()
    else if (this.#error) throw this.#error
    const [only] = this.#chunks
    return this.#chunks.length === 1 && only ? only : Buffer.concat(this.#chunks)
  }

  async text(): Promise<string> {
    const bytes = await this.bytes()
    if (bytes.length > maxTextBytes) throw new StorageError('The answer is too large')
    return bytes.toString('utf8')
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for (;;) {
        const chunks = this.#chunks
        this.#chunks = []
        this.#ahead = 0
        yield* chunks
        if (this.#chunks.length > 0) continue
        if (this.#error) throw this.#error
        if (this.#ended) return
        // Waiting begins first: resuming can bring the next piece, or the end, before it returns.
        const changed = this.#changed()
        this.#flow.resume()
        await changed
      }
    } finally {
      if (!this.#ended) this.cancel()
    }
  }

  /** Lets the connection go without reading. */
  cancel(): void {
    this.#flow.abort(new Error('the body is not wanted'))
  }

  #changed(): Promise<void> {
    return new Promise(resolve => {
      this.#wake = resolve
    })
  }
}
