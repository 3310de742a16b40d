// Tokens that are asked for once and kept until shortly before they expire.

import * as v from 'valibot'
import type { HttpClient } from './http.ts'
import { refusal } from './http-refusal.ts'
import { StorageError } from './storage.ts'

export interface Token {
  readonly value: string
  readonly expiresInSeconds: number
}

/** Asked anew so long before its end, for clocks differ and downloads take time. */
const marginMs = 120_000

export class BearerToken {
  readonly #ask: (signal: AbortSignal) => Promise<Token>
  #current: { readonly value: string; readonly until: number } | undefined
  #asking: Promise<string> | undefined

  constructor(ask: (signal: AbortSignal) => Promise<Token>) {
    this.#ask = ask
  }

  async get(signal: AbortSignal): Promise<string> {
    if (this.#current && performance.now() < this.#current.until) return this.#current.value
    // Many requests start at once; one of them asks.
    this.#asking ??= this.#renew(signal).finally(() => {
      this.#asking = undefined
    })
    return this.#asking
  }

  async #renew(signal: AbortSignal): Promise<string> {
    const { value, expiresInSeconds } = await this.#ask(signal)
    this.#current = { value, until: performance.now() + expiresInSeconds * 1000 - marginMs }
    return value
  }
}

// Azure's managed identity gives numbers as text.
const Answer = v.looseObject({
  access_token: v.string(),
  expires_in: v.optional(v.union([v.number(), v.string()]), 300),
})
const Refusal = v.looseObject({ error: v.optional(v.unknown()), error_description: v.optional(v.string()) })

export interface TokenRequest {
  readonly url: string
  /** Sent as a form; without it the request is a GET. */
  readonly form?: Readonly<Record<string, string>>
  readonly headers?: Readonly<Record<string, string>>
}

/** Asks an OAuth token endpoint. Throws a StorageError with the server's words, or a TransientError. */
export async function askToken(
  http: HttpClient,
  { url, form, headers = {} }: TokenRequest,
  signal: AbortSignal,
): Promise<Token> {
  const { origin, pathname, search, host } = new URL(url)
  const request = form
    ? {
        method: 'POST',
        body: new URLSearchParams(form).toString(),
        headers: { ...headers, 'content-type': 'application/x-www-form-urlencoded' },
      }
    : { method: 'GET', headers }
  const response = await http.send({ ...request, origin, path: pathname + search }, signal)
  const what = `Asking ${host} for a token`
  if (response.status !== 200) throw await refusal(what, response, readRefusal)
  const answer = v.safeParse(Answer, parseJson(await response.body.text()))
  if (!answer.success) throw new StorageError(`${what} gave no token`)
  return { value: answer.output.access_token, expiresInSeconds: Number(answer.output.expires_in) }
}

function readRefusal(body: string): string {
  const { success, output } = v.safeParse(Refusal, parseJson(body))
  return success ? [output.error, output.error_description].filter(text => typeof text === 'string').join(': ') : ''
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
