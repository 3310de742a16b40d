// `webhdfs://` in a `remote-file-system` block, with the settings of fsspec's WebHDFS: Hadoop's REST API.

import * as v from 'valibot'
import { parseJson } from './bearer-token.ts'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { HttpClient, type HttpResponse } from './http.ts'
import { type BasicLogin, basicHeader, basicLogin, caFileOf, readContent, takeLogin } from './http-login.ts'
import { refusal } from './http-refusal.ts'
import { joinBelow } from './paths.ts'
import type { RemoteUrl } from './protocols.ts'
import {
  type Content,
  type Entry,
  type FileEntry,
  type FileSource,
  type Remote,
  type Target,
  TransientError,
  type Upload,
} from './source.ts'
import { StorageError } from './storage.ts'
import { encodePath } from './url-encoding.ts'
import { walkFolders } from './walk-remote.ts'
import { type HdfsAddress, type HdfsWay, putFile } from './webhdfs-upload.ts'

const connections = 16

const text = v.nullish(v.string())
const Settings = v.looseObject({
  host: text,
  port: v.nullish(v.union([v.number(), v.string()])),
  user: text,
  password: text,
  token: text,
  proxy_to: text,
  data_proxy: v.nullish(v.record(v.string(), v.string())),
  kerberos: v.nullish(v.boolean()),
  use_https: v.nullish(v.boolean()),
  session_verify: v.nullish(v.union([v.boolean(), v.string()])),
})

interface HdfsPlace {
  readonly origin: string
  readonly login: BasicLogin | undefined
  /** Who we are, as parameters of each request. */
  readonly identity: Readonly<Record<string, string>>
  /** Addresses of data nodes, and what to call in their place. */
  readonly dataProxy: Readonly<Record<string, string>>
  readonly verify: boolean | string | undefined
}

export function openWebhdfsUrl(
  { rest }: RemoteUrl,
  settings: Readonly<Record<string, unknown>>,
  context: StorageContext,
): Remote {
  const fields = readFields('remote-file-system (webhdfs)', Settings, settings)
  if (fields.kerberos) throw new StorageError('Setting "kerberos" is not supported: give a delegation token as "token"')
  const [host = '', ...path] = rest.split('/')
  const scheme = fields.use_https ? 'https' : 'http'
  const url = URL.parse(`${scheme}://${host}`)
  if (!url) throw new StorageError('Field "basepath" names no host: webhdfs://host:port/folder')
  const own = takeLogin(url)
  const port = fields.port ?? (url.port || 50070)
  const user = fields.user || own?.username
  const place = {
    origin: `${scheme}://${fields.host || url.hostname}:${port}`,
    login: fields.password ? basicLogin(user, fields.password) : undefined,
    identity: {
      ...(fields.token ? { delegation: fields.token } : user && !fields.password ? { 'user.name': user } : {}),
      ...(fields.proxy_to ? { doas: fields.proxy_to } : {}),
    },
    dataProxy: fields.data_proxy ?? {},
    verify: fields.session_verify ?? undefined,
  }
  const open = (from: string | undefined) => new HdfsFolder(place, joinBelow(path.join('/'), from), context)
  return { folder: open, target: open }
}

const Listing = v.looseObject({
  FileStatuses: v.looseObject({
    FileStatus: v.array(
      v.looseObject({
        pathSuffix: v.string(),
        type: v.string(),
        length: v.number(),
        modificationTime: v.number(),
        symlink: v.optional(v.string()),
      }),
    ),
  }),
})

const Status = v.looseObject({ FileStatus: v.looseObject({ length: v.number(), modificationTime: v.number() }) })

class HdfsFolder implements FileSource, Target {
  readonly kind = 'files'
  readonly connections = connections
  readonly place: string
  readonly credentials: string
  readonly identity: readonly unknown[]
  readonly #place: HdfsPlace
  readonly #top: string
  readonly #http: HttpClient
  readonly #way: HdfsWay

  constructor(place: HdfsPlace, folder: string, context: StorageContext) {
    this.#place = place
    this.#top = folder
    const caFile = typeof place.verify === 'string' ? place.verify : caFileOf(context)
    const trust = { caFile, insecure: place.verify === false }
    this.#way = { ...trust, proxies: context.proxies }
    this.#http = new HttpClient({ connections, ...trust }, context)
    this.place = `WebHDFS folder /${folder} at ${place.origin}`
    this.credentials = describeLogin(place)
    this.identity = ['webhdfs', place, folder]
  }

  list(signal: AbortSignal): AsyncGenerator<readonly Entry[]> {
    return walkFolders((path, signal) => this.#readFolder(path, signal), connections, signal)
  }

  async open(file: FileEntry, offset: number, signal: AbortSignal): Promise<Content> {
    // Asked from where it broke off, a data node sends the rest as if it were all.
    const parameters = offset > 0 ? { op: 'OPEN', offset: String(offset) } : { op: 'OPEN' }
    const redirect = await this.#ask(file.ref, parameters, signal)
    const location = redirect.header('location')
    if (redirect.status !== 307 || location === '') {
      if (redirect.status === 200) return { ...(await readContent(file, 0, redirect)), offset }
      throw await refuse(`Reading "${file.path}"`, redirect)
    }
    await redirect.body.bytes()
    const response = await this.#http.send({ method: 'GET', ...this.#follow(location) }, signal)
    if (response.status !== 200 && response.status !== 206) throw await refuse(`Reading "${file.path}"`, response)
    return { offset, stream: response.body, bytes: limit => response.body.bytes(limit) }
  }

  async read(path: string, offset: number, signal: AbortSignal): Promise<Content> {
    const ref = [this.#top, path].filter(part => part !== '').join('/')
    const response = await this.#ask(ref, { op: 'GETFILESTATUS' }, signal)
    if (response.status !== 200) throw await refuse(`Looking at "${path}"`, response)
    const status = v.safeParse(Status, parseJson(await response.body.text()))
    if (!status.success) throw new StorageError(`Looking at "${path}" was answered with something else than its status`)
    const { length: size, modificationTime } = status.output.FileStatus
    const validator = `${modificationTime}/${size}`
    return { ...(await this.open({ kind: 'file', path, size, validator, ref }, offset, signal)), validator }
  }

  /** HDFS makes the folders that are missing. */
  async write(path: string, upload: Upload, signal: AbortSignal): Promise<void> {
    const target = [this.#top, path].filter(part => part !== '').join('/')
    const redirect = await this.#ask(target, { op: 'CREATE', overwrite: 'true' }, signal, 'PUT')
    const location = redirect.header('location')
    if (redirect.status !== 307 || location === '') throw await refuse(`Writing "${path}"`, redirect)
    await redirect.body.bytes()
    const { status, body } = await putFile(this.#follow(location), upload, this.#way, signal)
    if (status === 201 || status === 200) return
    const sentence = `Writing "${path}" was answered with ${status} (${wordsOf(body)})`
    throw status >= 500 ? new TransientError(sentence) : new StorageError(sentence)
  }

  close(): Promise<void> {
    return this.#http.close()
  }

  #ask(
    path: string,
    parameters: Readonly<Record<string, string>>,
    signal: AbortSignal,
    method = 'GET',
  ): Promise<HttpResponse> {
    const query = new URLSearchParams({ ...this.#place.identity, ...parameters })
    const where = path === '' ? '/' : `/${encodePath(path)}`
    return this.#http.send(
      {
        method,
        origin: this.#place.origin,
        path: `/webhdfs/v1${where}?${query.toString()}`,
        headers: basicHeader(this.#place.login),
      },
      signal,
    )
  }

  /**
   * Where the file itself is read or written. The login is for the name node: elsewhere the address that it gave holds what a
   * data node wants to see, but a gateway that sends on to itself wants to see the login again.
   */
  #follow(location: string): HdfsAddress {
    const { origin, pathname, search } = new URL(this.#reachable(location), this.#place.origin)
    const isSame = origin === new URL(this.#place.origin).origin
    return { origin, path: `${pathname}${search}`, headers: isSame ? basicHeader(this.#place.login) : {} }
  }

  #reachable(location: string): string {
    for (const [from, to] of Object.entries(this.#place.dataProxy)) {
      if (location.includes(from)) return location.replace(from, to)
    }
    return location
  }

  async #readFolder(path: string, signal: AbortSignal): Promise<readonly Entry[]> {
    const folder = [this.#top, path].filter(part => part !== '').join('/')
    const response = await this.#ask(folder, { op: 'LISTSTATUS' }, signal)
    if (response.status !== 200) throw await refuse(`Listing "/${folder}"`, response)
    const listing = v.safeParse(Listing, parseJson(await response.body.text()))
    if (!listing.success) throw new StorageError(`Listing "/${folder}" was answered with something else than a listing`)
    return listing.output.FileStatuses.FileStatus.map((status): Entry => {
      const { pathSuffix, type, length, modificationTime, symlink } = status
      // A file lists itself, without a name.
      if (pathSuffix === '') throw new StorageError('It is a file, not a folder')
      const below = path === '' ? pathSuffix : `${path}/${pathSuffix}`
      if (type === 'DIRECTORY') return { kind: 'folder', path: below }
      if (type === 'SYMLINK') return { kind: 'link', path: below, target: symlink ?? '' }
      return {
        kind: 'file',
        path: below,
        size: length,
        validator: `${modificationTime}/${length}`,
        ref: [folder, pathSuffix].filter(part => part !== '').join('/'),
      }
    })
  }
}

function describeLogin({ login, identity }: HdfsPlace): string {
  if (login) return `user "${login.username}" and password of the block`
  if (identity.delegation) return 'delegation token of the block'
  return identity['user.name'] ? `user "${identity['user.name']}", believed without a password` : 'no credentials'
}

const Refusal = v.looseObject({ RemoteException: v.looseObject({ message: v.string() }) })

function refuse(what: string, response: HttpResponse): Promise<Error> {
  return refusal(what, response, wordsOf)
}

function wordsOf(body: string): string {
  const { success, output } = v.safeParse(Refusal, parseJson(body))
  return success ? (output.RemoteException.message.split('\n')[0] ?? '') : ''
}
