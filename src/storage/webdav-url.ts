// `webdav://` in a `remote-file-system` block, with the settings of webdav4, which Python's fsspec uses for it.

import { dirname } from 'node:path/posix'
import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { EachOnce } from './each-once.ts'
import { HttpClient, type HttpRequest, type HttpResponse } from './http.ts'
import {
  type BasicLogin,
  basicHeader,
  basicLogin,
  caFileOf,
  openHeaders,
  readContent,
  refuseHttp,
  takeLogin,
} from './http-login.ts'
import { unescapeXml } from './http-refusal.ts'
import { joinBelow } from './paths.ts'
import type { RemoteUrl } from './protocols.ts'
import type { Content, Entry, FileEntry, FileSource, Remote, Target, Upload } from './source.ts'
import { StorageError } from './storage.ts'
import { decodePath, encodePath } from './url-encoding.ts'
import { walkFolders } from './walk-remote.ts'

const connections = 16

const Settings = v.looseObject({
  base_url: v.nullish(v.string()),
  auth: v.nullish(v.tuple([v.string(), v.string()])),
  headers: v.nullish(v.record(v.string(), v.string())),
  verify: v.nullish(v.union([v.boolean(), v.string()])),
})

interface WebdavPlace {
  readonly origin: string
  /** Path of the server's root, decoded, no slash at the ends. */
  readonly root: string
  readonly headers: Readonly<Record<string, string>>
  readonly login: BasicLogin | undefined
  readonly verify: boolean | string | undefined
}

export function openWebdavUrl(
  { rest }: RemoteUrl,
  settings: Readonly<Record<string, unknown>>,
  context: StorageContext,
): Remote {
  const { base_url, auth, headers, verify } = readFields('remote-file-system (webdav)', Settings, settings)
  // Without the server's address in the settings, it is what the URL begins with.
  const [host = '', ...inside] = rest.split('/')
  const url = URL.parse(base_url || `https://${host}`)
  if (!url || !/^https?:$/.test(url.protocol)) throw new StorageError('Setting "base_url" is not a URL')
  const own = takeLogin(url)
  const place = {
    origin: url.origin,
    root: decodeRoot(url.pathname).replace(/^\/+|\/+$/g, ''),
    headers: headers ?? {},
    login: auth ? basicLogin(...auth) : own,
    verify: verify ?? undefined,
  }
  const base = base_url ? rest : inside.join('/')
  const open = (from: string | undefined) => new WebdavFolder(place, joinBelow(base, from), context)
  return { folder: open, target: open }
}

function decodeRoot(path: string): string {
  try {
    return decodeURIComponent(path)
  } catch {
    throw new StorageError('Setting "base_url" has a "%" that stands for no character: write %25')
  }
}

const query =
  '<?xml version="1.0"?><d:propfind xmlns:d="DAV:"><d:prop><d:resourcetype/><d:getcontentlength/><d:getlastmodified/><d:getetag/></d:prop></d:propfind>'

class WebdavFolder implements FileSource, Target {
  readonly kind = 'files'
  readonly connections = connections
  readonly place: string
  readonly credentials: string
  readonly identity: readonly unknown[]
  readonly #place: WebdavPlace
  /** Decoded, with the server's root, no slash at the ends. */
  readonly #top: string
  readonly #http: HttpClient
  readonly #folders = new EachOnce()

  constructor(place: WebdavPlace, folder: string, context: StorageContext) {
    this.#place = place
    this.#top = joinBelow(place.root, folder)
    const caFile = typeof place.verify === 'string' ? place.verify : caFileOf(context)
    this.#http = new HttpClient({ connections, caFile, insecure: place.verify === false }, context)
    this.place = `WebDAV folder ${place.origin}/${this.#top}`
    this.credentials = place.login ? `user "${place.login.username}" and password of the block` : 'no credentials'
    this.identity = ['webdav', place, folder]
  }

  list(signal: AbortSignal): AsyncGenerator<readonly Entry[]> {
    return walkFolders((path, signal) => this.#readFolder(path, signal), connections, signal)
  }

  async open(file: FileEntry, offset: number, signal: AbortSignal): Promise<Content> {
    return readContent(file, offset, await this.#send('GET', file.ref, signal, openHeaders(file, offset)))
  }

  read(path: string, offset: number, signal: AbortSignal): Promise<Content> {
    const ref = this.#pathOf(path)
    return this.open({ kind: 'file', path, size: undefined, validator: undefined, ref }, offset, signal)
  }

  async write(path: string, upload: Upload, signal: AbortSignal): Promise<void> {
    const target = this.#pathOf(path)
    await this.#makeFolder(dirname(target), signal)
    const headers = { 'content-type': 'application/octet-stream', 'content-length': String(upload.size) }
    const response = await this.#send('PUT', target, signal, headers, await upload.open())
    if (response.status < 200 || response.status > 299) throw await refuseHttp(`Writing "${path}"`, response)
    await response.body.bytes()
  }

  close(): Promise<void> {
    return this.#http.close()
  }

  #pathOf(path: string): string {
    return `/${encodePath([this.#top, path].filter(part => part !== '').join('/'))}`
  }

  /** One that is there already is refused with 405, which is fine; so may be one above the server's root. */
  #makeFolder(folder: string, signal: AbortSignal): Promise<void> {
    if (folder === '/' || this.#place.root === decodeURIComponent(folder.slice(1))) return Promise.resolve()
    return this.#folders.do(folder, async () => {
      await this.#makeFolder(dirname(folder), signal)
      const response = await this.#send('MKCOL', `${folder}/`, signal, {})
      if (response.status >= 500) throw await refuseHttp(`Making the folder "${folder}"`, response)
      await response.body.bytes()
    })
  }

  #send(
    method: string,
    path: string,
    signal: AbortSignal,
    headers: Readonly<Record<string, string>>,
    body?: HttpRequest['body'],
  ): Promise<HttpResponse> {
    const { origin, login } = this.#place
    const all = { ...basicHeader(login), ...this.#place.headers, ...headers }
    return this.#http.send({ method, origin, path, headers: all, body }, signal)
  }

  async #readFolder(path: string, signal: AbortSignal): Promise<readonly Entry[]> {
    const folder = joinBelow(this.#top, undefined) === '' ? path : [this.#top, path].filter(Boolean).join('/')
    const at = folder === '' ? '/' : `/${encodePath(folder)}/`
    const headers = { depth: '1', 'content-type': 'application/xml' }
    const response = await this.#send('PROPFIND', at, signal, headers, query)
    if (response.status !== 207) throw await refuseHttp(`Listing "${at}"`, response)
    const resources = readMultistatus(await response.body.text())
    return resources.flatMap(({ href, isFolder, ...rest }): Entry[] => {
      const target = URL.parse(href, `${this.#place.origin}${at}`)?.pathname ?? href
      const whole = (decodePath(target) ?? target).replace(/^\/+|\/+$/g, '')
      if (whole === folder) {
        if (!isFolder) throw new StorageError('It is a file, not a folder')
        return []
      }
      // A server may speak of itself by another prefix, behind a proxy; what it names last is what lies in the folder.
      const name =
        folder === '' || whole.startsWith(`${folder}/`)
          ? whole.slice(folder === '' ? 0 : folder.length + 1)
          : (whole.split('/').at(-1) ?? '')
      const below = path === '' ? name : `${path}/${name}`
      return [isFolder ? { kind: 'folder', path: below } : { kind: 'file', path: below, ...rest, ref: target }]
    })
  }
}

interface Resource {
  readonly href: string
  readonly isFolder: boolean
  readonly size: number | undefined
  readonly validator: string | undefined
}

/** RFC 4918, section 13: prefixes of namespaces are the server's choice. */
export function readMultistatus(xml: string): readonly Resource[] {
  // By their ends: to look from each beginning for its end would take for ever when there is none.
  const responses = xml.split(/<\/(?:[\w-]+:)?response>/i).slice(0, -1)
  return responses.map(text => {
    const size = textOf(text, 'getcontentlength')
    const etag = textOf(text, 'getetag')
    const modified = textOf(text, 'getlastmodified')
    return {
      href: textOf(text, 'href'),
      isFolder: /<(?:[\w-]+:)?collection[\s/>]/i.test(text),
      size: /^\d+$/.test(size) ? Number(size) : undefined,
      validator: etag || (modified && `${modified}/${size}`) || undefined,
    }
  })
}

function textOf(xml: string, name: string): string {
  const found = new RegExp(`<(?:[\\w-]+:)?${name}(?:\\s[^<>]*)?>([^<]*)</`, 'i').exec(xml)?.[1]
  return found === undefined ? '' : unescapeXml(found.trim())
}
