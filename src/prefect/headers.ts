// The headers that every request carries, decided once. Pure, apart from a warning for those that are not ours to change.

import { UserError } from '../errors.ts'
import { type ClientOptions, readBaseUrl } from './options.ts'

/** What 2.20 and 3.x clients send; servers of both refuse anything below 0.8.0 (server/api/dependencies.py). */
const API_VERSION = '0.8.4'

/** Prefect protects the first three (client/base.py); the rest would break the exchange itself. */
const PROTECTED = new Set([
  'user-agent',
  'prefect-csrf-token',
  'prefect-csrf-client',
  'host',
  'connection',
  'content-length',
  'content-type',
  'transfer-encoding',
  'accept-encoding',
  'expect',
  'upgrade',
])

/** Throws UserError for a header that cannot be sent. */
export function buildHeaders(options: ClientOptions): Readonly<Record<string, string>> {
  const authorization = buildAuthorization(options)
  const headers: Record<string, string> = {
    accept: 'application/json',
    // Answers are small and the server mostly near; unpacking would cost more than it saves.
    'accept-encoding': 'identity',
    'user-agent': `rigel${options.version ? `/${options.version}` : ''}`,
    'x-prefect-api-version': API_VERSION,
    ...(authorization === undefined ? {} : { authorization }),
  }
  const refused: string[] = []
  for (const [name, value] of Object.entries(options.customHeaders ?? {})) {
    if (PROTECTED.has(name.toLowerCase())) refused.push(name)
    else headers[name.toLowerCase()] = value
  }
  if (refused.length > 0) options.logger.warn({ names: refused }, 'left out custom headers that must not be replaced')
  for (const [name, value] of Object.entries(headers)) checkHeader(name, value)
  return headers
}

/** Basic goes before bearer, as in Prefect 3; a user in the URL serves when neither is set. */
function buildAuthorization({ key, authString, url }: ClientOptions): string | undefined {
  if (authString) return basic(authString)
  if (key) return `Bearer ${key}`
  const { username, password } = readBaseUrl(url)
  return username ? basic(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`) : undefined
}

function basic(credentials: string): string {
  return `Basic ${Buffer.from(credentials, 'utf8').toString('base64')}`
}

/** The value is never shown: a key with a line end at its end is the usual mistake. */
function checkHeader(name: string, value: string): void {
  if (/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name) && /^[\t\x20-\x7e\x80-\xff]*$/.test(value)) return
  const what = name === 'authorization' ? 'The API key' : `The custom header ${JSON.stringify(name)}`
  throw new UserError(`${what} holds characters that cannot be sent.`, {
    hint: 'Look for a line end or a stray character.',
  })
}
