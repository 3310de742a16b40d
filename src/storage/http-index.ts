// `http://` and `https://` in a `remote-file-system` block: a folder is a page of links, as web servers make them, and what
// it links to below itself is in it. fsspec reads such pages too, but cannot fetch a folder that has folders.

import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { HttpClient } from './http.ts'
import { isMadeForUs, isSettled, readSaid, type Said } from './http-listing.ts'
import {
  type BasicLogin,
  basicHeader,
  basicLogin,
  caFileOf,
  openHeaders,
  readContent,
  refuseHttp,
  sizeAndValidator,
  takeLogin,
} from './http-login.ts'
import { unescapeXml } from './http-refusal.ts'
import { joinBelow } from './paths.ts'
import type { RemoteUrl } from './protocols.ts'
import type { Content, Entry, FileEntry, FileSource, KnownFiles, Reader, Remote } from './source.ts'
import { StorageError } from './storage.ts'
import { decodePath } from './url-encoding.ts'
import { walkFolders } from './walk-remote.ts'

const connections = 32

const Headers = v.nullish(v.record(v.string(), v.string()))
const Auth = v.nullish(
  v.union([v.tuple([v.string(), v.string()]), v.looseObject({ login: v.string(), password: v.string() })]),
)
/** fsspec hands `client_kwargs` to aiohttp's session and all others to each request. */
const Settings = v.looseObject({
  headers: Headers,
  auth: Auth,
  ssl: v.nullish(v.boolean()),
  client_kwargs: v.nullish(v.looseObject({ headers: Headers, auth: Auth })),
})

interface HttpPlace {
  readonly origin: string
  readonly headers: Readonly<Record<string, string>>
  readonly login: BasicLogin | undefined
  readonly insecure: boolean
}

export function openHttpUrl(
  { protocol, rest }: RemoteUrl,
  settings: Readonly<Record<string, unknown>>,
  context: StorageContext,
): Remote {
  const { client_kwargs: client, ...request } = readFields(`remote-file-system (${protocol})`, Settings, settings)
  const [host = '', ...path] = rest.split('/')
  const url = URL.parse(`${protocol}://${host}`)
  if (!url) throw new StorageError(`Field "basepath" names no host: ${protocol}://host/folder`)
  const own = takeLogin(url)
  const place = {
    origin: url.origin,
    headers: { ...client?.headers, ...request.headers },
    login: loginOf(request.auth) ?? loginOf(client?.auth) ?? own,
    insecure: request.ssl === false,
  }
  const open = (from: string | undefined) => new HttpFolder(place, joinBelow(path.join('/'), from), context)
  return { folder: open, reader: open }
}

function loginOf(auth: v.InferOutput<typeof Auth>): BasicLogin | undefined {
  if (!auth) return undefined
  return Array.isArray(auth) ? basicLogin(auth[0], auth[1]) : basicLogin(auth.login, auth.password)
}

class HttpFolder implements FileSource, Reader {
  readonly kind = 'files'
  readonly connections = connections
  readonly place: string
  readonly credentials: string
  readonly identity: readonly unknown[]
  readonly #place: HttpPlace
  /** Encoded; with a slash on both ends. */
  readonly #top: string
  readonly #http: HttpClient
  /** Of files that nobody has been asked about yet. */
  readonly #said = new Map<string, Said>()

  constructor(place: HttpPlace, folder: string, context: StorageContext) {
    this.#place = place
    this.#top = folder === '' ? '/' : `/${encodeLoosely(folder)}/`
    this.#http = new HttpClient({ connections, caFile: caFileOf(context), insecure: place.insecure }, context)
    this.place = `${place.origin}/${folder}`
    this.credentials = place.login
      ? `user "${place.login.username}" and password of the block`
      : Object.keys(place.headers).length > 0
        ? 'headers of the block, which may hold a token'
        : 'no credentials'
    this.identity = ['http', place, folder]
  }

  async *list(signal: AbortSignal, known?: () => Promise<KnownFiles | undefined>): AsyncGenerator<readonly Entry[]> {
    const files = known ? await known() : new Map()
    yield* walkFolders((path, signal) => this.#readFolder(path, files, signal), connections, signal)
  }

  async open(file: FileEntry, offset: number, signal: AbortSignal): Promise<Content> {
    const response = await this.#send('GET', file.ref, signal, openHeaders(file, offset))
    const said = file.validatorComes && this.#said.get(file.path)
    const sign = said && isSettled(said, response) ? said.sign : undefined
    return { ...(await readContent(file, offset, response)), sign }
  }

  read(path: string, offset: number, signal: AbortSignal): Promise<Content> {
    const ref = `${this.#top}${path.split('/').map(encodeURIComponent).join('/')}`
    return this.open({ kind: 'file', path, size: undefined, validator: undefined, ref }, offset, signal)
  }

  close(): Promise<void> {
    return this.#http.close()
  }

  #send(method: string, path: string, signal: AbortSignal, headers: Readonly<Record<string, string>> = {}) {
    const { origin, login } = this.#place
    const all = { ...basicHeader(login), ...this.#place.headers, ...headers }
    return this.#http.send({ method, origin, path, headers: all }, signal)
  }

  async #readFolder(path: string, known: KnownFiles | undefined, signal: AbortSignal): Promise<readonly Entry[]> {
    const at = path === '' ? this.#top : `${this.#top}${path.split('/').map(encodeURIComponent).join('/')}/`
    const response = await this.#send('GET', at, signal, { 'cache-control': 'no-cache' })
    if (response.status !== 200) {
      const error = await refuseHttp(`Listing "${at}"`, response)
      if (path === '' && (response.status === 404 || response.status === 403)) await this.#refuseFile(signal)
      throw error
    }
    if (!/^(text\/html|application\/xhtml)/i.test(response.header('content-type'))) {
      response.body.cancel()
      throw new StorageError(`"${at}" is a file, not a folder: the answer is no page of links`)
    }
    const links = readLinks(await response.body.text(), `${this.#place.origin}${at}`)
    const entries = links.map(async ({ path: below, isFolder, ref, said }): Promise<Entry> => {
      const whole = path === '' ? below : `${path}/${below}`
      if (isFolder) return { kind: 'folder', path: whole }
      const exact = isMadeForUs(response) ? said : undefined
      if (exact && !known) {
        this.#said.set(whole, exact)
        return { kind: 'file', path: whole, size: exact.size, validator: undefined, validatorComes: true, ref }
      }
      const before = known?.get(whole)
      if (exact && before?.sign === exact.sign) return { kind: 'file', path: whole, size: exact.size, ...before, ref }
      return this.#describe(whole, ref, exact, signal)
    })
    return Promise.all(entries)
  }

  async #describe(path: string, ref: string, said: Said | undefined, signal: AbortSignal): Promise<Entry> {
    const response = await this.#send('HEAD', ref, signal, { 'accept-encoding': 'identity' })
    if (response.status !== 200) throw await refuseHttp(`Looking at "${path}"`, response)
    await response.body.bytes()
    const sign = said && isSettled(said, response) ? { sign: said.sign } : {}
    return { kind: 'file', path, ...sizeAndValidator(response), ...sign, ref }
  }

  async #refuseFile(signal: AbortSignal): Promise<void> {
    if (this.#top === '/') return
    const response = await this.#send('HEAD', this.#top.slice(0, -1), signal)
    await response.body.bytes()
    if (response.status === 200) throw new StorageError('It is a file, not a folder')
  }
}

interface Link {
  /** Below the page, decoded. */
  readonly path: string
  readonly isFolder: boolean
  /** Path on the server, as it was linked. */
  readonly ref: string
  /** What stands behind the link. */
  readonly said: Said | undefined
}

/** What a page at `base` (a URL that ends with a slash) links to below itself, each once; orders of sorting are left out. */
export function readLinks(html: string, base: string): readonly Link[] {
  const links = new Map<string, Link>()
  const { origin, pathname: top } = new URL(base)
  const matches = [...html.matchAll(/<a\s(?:[^<>]*?\s)?href\s*=\s*(?:"([^"]*)"|'([^']*)')/gi)]
  for (const [at, match] of matches.entries()) {
    const [whole, double, single] = match
    const href = unescapeXml((double ?? single ?? '').trim())
    const url = URL.parse(href, base)
    if (!url || url.origin !== origin || url.search !== '' || !url.pathname.startsWith(top)) continue
    const below = url.pathname.slice(top.length)
    const isFolder = below.endsWith('/')
    const path = decodePath(isFolder ? below.slice(0, -1) : below)
    if (below === '' || path === undefined) continue
    // No farther than the next link: pages without any end of one would take for ever.
    const rest = html.slice(match.index + whole.length, matches[at + 1]?.index)
    const behind = /^[^<>]*>[^<]*<\/a>([^<\r\n]*)/i.exec(rest)?.[1]
    links.set(below, { path, isFolder, ref: url.pathname, said: behind === undefined ? undefined : readSaid(behind) })
  }
  return [...links.values()]
}

/** As yarl does it for fsspec: what is encoded already stays, the rest is encoded. */
function encodeLoosely(path: string): string {
  return path
    .split(/(%[0-9a-f]{2}|\/)/i)
    .map((part, at) => (at % 2 === 1 ? part : encodeURIComponent(part)))
    .join('')
}
