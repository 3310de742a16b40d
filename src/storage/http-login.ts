// What the storages that are plain HTTP have in common: basic auth, the authority to trust, how a file is opened.

import type { StorageContext } from './context.ts'
import type { HttpResponse } from './http.ts'
import { elementText, refusal } from './http-refusal.ts'
import { ChangedError, type Content, type FileEntry } from './source.ts'

export interface BasicLogin {
  readonly username: string
  readonly password: string
}

/** `[user, password]` as Python's clients take it, or an object, or nothing. */
export function basicLogin(username: unknown, password: unknown): BasicLogin | undefined {
  if (!username && !password) return undefined
  return { username: textOf(username), password: textOf(password) }
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

export function basicHeader(login: BasicLogin | undefined): Readonly<Record<string, string>> {
  if (!login) return {}
  return { authorization: `Basic ${Buffer.from(`${login.username}:${login.password}`).toString('base64')}` }
}

/** Python's clients take the authorities to trust from there. */
export function caFileOf({ environment }: StorageContext): string | undefined {
  return environment.SSL_CERT_FILE || undefined
}

/** User and password that stand in a URL, which then does without them. */
export function takeLogin(url: URL): BasicLogin | undefined {
  const login = basicLogin(decode(url.username), decode(url.password))
  url.username = ''
  url.password = ''
  return login
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** Headers that open a file from `offset` on, and only as long as it is the one that was listed. */
export function openHeaders({ validator }: FileEntry, offset: number): Readonly<Record<string, string>> {
  const etag = validator?.startsWith('"') ? validator : undefined
  return {
    'accept-encoding': 'identity',
    ...(etag === undefined ? {} : { 'if-match': etag }),
    ...(offset > 0 ? { range: `bytes=${offset}-` } : {}),
  }
}

/** The file's content, or the error that the answer stands for. */
export async function readContent(file: FileEntry, offset: number, response: HttpResponse): Promise<Content> {
  const { status, body } = response
  if (status === 200 || status === 206) {
    const { validator } = sizeAndValidator(response)
    return { offset: status === 206 ? offset : 0, stream: body, validator, bytes: limit => body.bytes(limit) }
  }
  const error = await refuseHttp(`Reading "${file.path}"`, response)
  throw [404, 410, 412, 416].includes(status) ? new ChangedError(error.message) : error
}

/** A page for people is all that most servers say; its title is their word. */
export function refuseHttp(what: string, response: HttpResponse): Promise<Error> {
  return refusal(
    what,
    response,
    body => elementText(body, 'title') || (body.length < 300 ? body.replace(/<[^>]*>/g, '').trim() : ''),
  )
}

export function sizeAndValidator(response: HttpResponse): { size: number | undefined; validator: string | undefined } {
  // The answer with a rest says how long all of it is.
  const length = /\/(\d+)$/.exec(response.header('content-range'))?.[1] ?? response.header('content-length')
  const size = length === '' ? undefined : Number(length)
  const modified = response.header('last-modified')
  const etag = response.header('etag')
  return { size, validator: etag || (modified && `${modified}/${length}`) || undefined }
}
