// The token that a server with CSRF protection wants on every change; kept for as long as it is valid.
//
// In: a way to ask the server. Out: headers, or none where the protection is off. One question serves all callers.

import { randomUUID } from 'node:crypto'
import * as v from 'valibot'

export const CsrfToken = v.object({ token: v.string(), expiration: v.string() })
export type CsrfToken = v.InferOutput<typeof CsrfToken>

/** Undefined: this server does not use tokens. */
export type AskForToken = (clientId: string, signal: AbortSignal) => Promise<CsrfToken | undefined>

export class CsrfTokens {
  readonly #clientId = randomUUID()
  readonly #ask: AskForToken
  #token: { headers: Record<string, string>; expiresAt: number } | 'none needed' | undefined
  #asking: Promise<void> | undefined

  constructor(ask: AskForToken) {
    this.#ask = ask
  }

  /** `now` is the server's clock, in milliseconds. Throws what asking throws. */
  async headers(now: number, signal: AbortSignal): Promise<Readonly<Record<string, string>>> {
    // Whoever was waiting for another's question asks again when that one failed: perhaps only its caller went away.
    while (this.#asking) {
      await settledOrAborted(this.#asking, signal)
      signal.throwIfAborted()
    }
    if (this.#token === undefined || (this.#token !== 'none needed' && this.#token.expiresAt <= now)) {
      this.#asking = this.#renew(signal).finally(() => {
        this.#asking = undefined
      })
      await this.#asking
    }
    return this.#token === undefined || this.#token === 'none needed' ? {} : this.#token.headers
  }

  /** The server refused the token, or the lack of one (it was restarted with the protection on). */
  forget(): void {
    this.#token = undefined
  }

  async #renew(signal: AbortSignal): Promise<void> {
    const answer = await this.#ask(this.#clientId, signal)
    if (answer === undefined) {
      this.#token = 'none needed'
      return
    }
    const expiration = Date.parse(answer.expiration)
    this.#token = {
      headers: { 'prefect-csrf-token': answer.token, 'prefect-csrf-client': this.#clientId },
      // An expiration that cannot be read: the 403 will tell.
      expiresAt: Number.isNaN(expiration) ? Number.POSITIVE_INFINITY : expiration,
    }
  }
}

async function settledOrAborted(asking: Promise<void>, signal: AbortSignal): Promise<void> {
  const { promise: aborted, resolve } = Promise.withResolvers<unknown>()
  signal.addEventListener('abort', resolve)
  await Promise.race([asking.catch(() => undefined), aborted])
  signal.removeEventListener('abort', resolve)
}
