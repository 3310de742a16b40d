// Sessions with one FTP server: each does one thing at a time, so there are as many as there is to do at once, up to a limit.

import { type FtpPlace, FtpSession } from './ftp-session.ts'

export class FtpPool {
  readonly #place: FtpPlace
  readonly #limit: number
  readonly #idle: FtpSession[] = []
  readonly #all = new Set<FtpSession>()
  readonly #waiting: (() => void)[] = []
  #busy = 0

  constructor(place: FtpPlace, limit: number) {
    this.#place = place
    this.#limit = limit
  }

  /** Give it back by `release`. */
  async take(signal: AbortSignal): Promise<FtpSession> {
    while (this.#busy >= this.#limit) await new Promise<void>(resolve => this.#waiting.push(resolve))
    this.#busy += 1
    try {
      const idle = this.#idle.pop()
      const session = idle && !idle.isClosed ? idle : await this.#open(signal)
      session.watch(signal)
      return session
    } catch (error) {
      this.#free()
      throw error
    }
  }

  /** `sound`: what it did came to its end, so it can be used again. */
  release(session: FtpSession, sound: boolean): void {
    session.unwatch()
    if (sound && !session.isClosed) this.#idle.push(session)
    else {
      session.close()
      this.#all.delete(session)
    }
    this.#free()
  }

  close(): void {
    for (const session of this.#all) session.close()
  }

  async #open(signal: AbortSignal): Promise<FtpSession> {
    const session = await FtpSession.open(this.#place, signal)
    this.#all.add(session)
    return session
  }

  #free(): void {
    this.#busy -= 1
    this.#waiting.shift()?.()
  }
}
