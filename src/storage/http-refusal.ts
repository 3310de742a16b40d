// What a status code that was not hoped for means: final, or worth another try.

import type { HttpResponse } from './http.ts'
import { TransientError } from './source.ts'
import { StorageError } from './storage.ts'

/** 408, 429 and what a server says when it is in trouble. */
const transient = new Set([408, 429, 500, 502, 503, 504])
const maxWords = 500

/**
 * The error for an answer. `readWords` takes the server's own words out of the body, without anything that could be secret;
 * '' when there are none.
 */
export async function refusal(
  what: string,
  response: HttpResponse,
  readWords: (body: string) => string,
): Promise<StorageError | TransientError> {
  const words = readWords(await response.body.text().catch(() => ''))
  const sentence = `${what} was answered with ${response.status}${words === '' ? '' : ` (${words.slice(0, maxWords)})`}`
  if (!transient.has(response.status)) return new StorageError(sentence)
  const seconds = Number(response.header('retry-after') || Number.NaN)
  return new TransientError(sentence, { retryAfterMs: Number.isFinite(seconds) ? seconds * 1000 : undefined })
}

/** Text of an XML or HTML element, with entities resolved; '' when it is not there. */
export function elementText(xml: string, name: string): string {
  const text = new RegExp(`<${name}(?:\\s[^>]*)?>([^<]*)</${name}>`).exec(xml)?.[1]
  return text === undefined ? '' : unescapeXml(text)
}

const entities: Readonly<Record<string, string>> = { lt: '<', gt: '>', quot: '"', apos: "'", amp: '&' }

export function unescapeXml(text: string): string {
  if (!text.includes('&')) return text
  return text.replace(/&(?:#x([0-9a-f]+)|#(\d+)|(\w+));/gi, (whole, hex: string, decimal: string, name: string) => {
    if (hex) return String.fromCodePoint(Number.parseInt(hex, 16))
    if (decimal) return String.fromCodePoint(Number(decimal))
    return entities[name] ?? whole
  })
}
