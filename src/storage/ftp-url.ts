// `ftp://` and `ftps://` in a `remote-file-system` block, with the settings of fsspec's FTPFileSystem.

import { once } from 'node:events'
import { pipeline } from 'node:stream/promises'
import type { FTPResponse } from 'basic-ftp'
import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { FetchLimits, StorageContext } from './context.ts'
import { EachOnce } from './each-once.ts'
import { readList, readMlsd } from './ftp-listing.ts'
import { FtpPool } from './ftp-pool.ts'
import { type FtpPlace, type FtpSession, ftpError, type Transfer } from './ftp-session.ts'
import { caFileOf, takeLogin } from './http-login.ts'
import { joinBelow } from './paths.ts'
import type { RemoteUrl } from './protocols.ts'
import type { Content, Entry, FileEntry, FileSource, Remote, Target, Upload } from './source.ts'
import { StorageError } from './storage.ts'
import { walkFolders } from './walk-remote.ts'

/** More than this many servers refuse. */
const connections = 8
/** A line of a listing: a name of 255 bytes, and facts. */
const lineBytes = 512

const text = v.nullish(v.string())
const Settings = v.looseObject({
  host: text,
  port: v.nullish(v.pipe(v.union([v.number(), v.string()]), v.transform(Number), v.integer())),
  username: text,
  password: text,
  acct: text,
  /** fsspec: true is explicit TLS, a text such as "tlsv1_2" implicit TLS. */
  tls: v.nullish(v.union([v.boolean(), v.string()])),
  /** Ours: Python's ftplib believes any certificate. */
  verify: v.nullish(v.union([v.boolean(), v.string()])),
})

export function openFtpUrl(
  { protocol, rest }: RemoteUrl,
  settings: Readonly<Record<string, unknown>>,
  context: StorageContext,
): Remote {
  const fields = readFields(`remote-file-system (${protocol})`, Settings, settings)
  const [authority = '', ...path] = rest.split('/')
  const url = URL.parse(`ftp-storage://${authority}`)
  if (!url?.hostname) throw new StorageError(`Field "basepath" names no host: ${protocol}://host/folder`)
  const own = takeLogin(url)
  const tls = fields.tls ?? protocol === 'ftps'
  const place: FtpPlace = {
    host: fields.host || url.hostname,
    port: fields.port ?? (Number(url.port) || (typeof tls === 'string' ? 990 : 21)),
    username: fields.username || own?.username || undefined,
    password: fields.password || own?.password || undefined,
    account: fields.acct || undefined,
    tls: typeof tls === 'string' ? 'implicit' : tls ? 'explicit' : 'none',
    verify: fields.verify !== false,
    caFile: typeof fields.verify === 'string' ? fields.verify : caFileOf(context),
  }
  if (/[\r\n\0]/.test(`${place.username}${place.password}${place.account}`)) {
    throw new StorageError('User or password has a line break in it')
  }
  const open = (from: string | undefined) => new FtpFolder(place, joinBelow(path.join('/'), from), context)
  return { folder: open, target: open }
}

class FtpFolder implements FileSource, Target {
  readonly kind = 'files'
  readonly connections = connections
  readonly place: string
  readonly credentials: string
  readonly identity: readonly unknown[]
  /** With a leading slash, none at the end. */
  readonly #top: string
  readonly #pool: FtpPool
  readonly #meter: StorageContext['meter']
  readonly #limits: FetchLimits
  readonly #folders = new EachOnce()

  constructor(place: FtpPlace, folder: string, context: StorageContext) {
    this.#top = folder === '' ? '' : `/${folder}`
    this.#pool = new FtpPool(place, connections)
    this.#meter = context.meter
    this.#limits = context.limits
    this.place = `FTP folder ${this.#top || '/'} at ${place.host}:${place.port}${place.tls === 'none' ? '' : ` (${place.tls} TLS)`}`
    this.credentials = place.username === undefined ? 'anonymous' : `user "${place.username}" and password of the block`
    this.identity = ['ftp', place, folder]
  }

  list(signal: AbortSignal): AsyncGenerator<readonly Entry[]> {
    return walkFolders((path, signal) => this.#readFolder(path, signal), connections, signal)
  }

  async open(file: FileEntry, offset: number, signal: AbortSignal): Promise<Content> {
    const { session, transfer } = await this.#begin(`RETR ${file.ref}`, offset, signal)
    return { offset, stream: this.#drain(session, transfer) }
  }

  async read(path: string, offset: number, signal: AbortSignal): Promise<Content> {
    const ref = `${this.#top}/${path}`
    const modified = await this.#ask(`MDTM ${ref}`, signal)
    const content = await this.open({ kind: 'file', path, size: undefined, validator: undefined, ref }, offset, signal)
    return { ...content, validator: modified.code === 213 ? modified.message : undefined }
  }

  async write(path: string, upload: Upload, signal: AbortSignal): Promise<void> {
    const target = `${this.#top}/${path}`
    await this.#makeFolder(target.slice(0, target.lastIndexOf('/')), signal)
    const content = await upload.open()
    const { session, transfer } = await this.#begin(`STOR ${target}`, 0, signal)
    let sound = false
    try {
      if (content instanceof Uint8Array) {
        transfer.socket.end(content)
        await once(transfer.socket, 'finish')
      } else await pipeline(content, transfer.socket)
      await transfer.finished
      sound = true
    } catch (error) {
      throw ftpError(`Writing "${path}"`, error)
    } finally {
      transfer.socket.destroy()
      this.#pool.release(session, sound)
    }
  }

  close(): Promise<void> {
    this.#pool.close()
    return Promise.resolve()
  }

  async #begin(
    command: string,
    offset: number,
    signal: AbortSignal,
  ): Promise<{ session: FtpSession; transfer: Transfer }> {
    const session = await this.#pool.take(signal)
    if (this.#meter) this.#meter.requests += 1
    try {
      return { session, transfer: await session.transfer(command, offset) }
    } catch (error) {
      this.#pool.release(session, error instanceof StorageError)
      signal.throwIfAborted()
      throw error
    }
  }

  async *#drain(session: FtpSession, transfer: Transfer): AsyncGenerator<Uint8Array> {
    let sound = false
    try {
      // The type of a socket's chunks is unknown to its iterator; without an encoding they are bytes.
      for await (const chunk of transfer.socket as AsyncIterable<Uint8Array>) yield chunk
      await transfer.finished
      sound = true
    } catch (error) {
      throw ftpError('The transfer', error)
    } finally {
      transfer.socket.destroy()
      this.#pool.release(session, sound)
    }
  }

  async #readFolder(path: string, signal: AbortSignal): Promise<readonly Entry[]> {
    const at = path === '' ? this.#top : `${this.#top}/${path}`
    if (path === '') {
      // A server may list the file itself when it is no folder, or nothing at all.
      const known = await this.#ask(`CWD ${at || '/'}`, signal)
      if (known.code >= 300) throw await this.#refuseTop(known.message, signal)
    }
    const hasMlsd = await this.#hasMlsd(signal)
    const text = await this.#gather(hasMlsd ? `MLSD ${at || '/'}` : `LIST -a ${at || '/'}`, signal)
    return hasMlsd ? readMlsd(text, path, at) : readList(text, path, at)
  }

  async #gather(command: string, signal: AbortSignal): Promise<string> {
    const { session, transfer } = await this.#begin(command, 0, signal)
    const { maxFiles } = this.#limits
    const chunks: Uint8Array[] = []
    let bytes = 0
    for await (const chunk of this.#drain(session, transfer)) {
      bytes += chunk.length
      if (bytes > maxFiles * lineBytes)
        throw new StorageError(`Its listing is longer than one of ${maxFiles} files can be`)
      chunks.push(chunk)
    }
    return Buffer.concat(chunks).toString('utf8')
  }

  async #refuseTop(words: string, signal: AbortSignal): Promise<Error> {
    const size = await this.#ask(`SIZE ${this.#top}`, signal)
    if (size.code === 213) return new StorageError('It is a file, not a folder')
    return new StorageError(`Listing it was refused (${words.trim()})`)
  }

  /** Each once; one that is there already is refused, which is fine: what is wrong is said when the file is written. */
  #makeFolder(folder: string, signal: AbortSignal): Promise<void> {
    if (folder === '') return Promise.resolve()
    return this.#folders.do(folder, () => this.#makeOne(folder, signal))
  }

  async #makeOne(folder: string, signal: AbortSignal): Promise<void> {
    await this.#makeFolder(folder.slice(0, folder.lastIndexOf('/')), signal)
    await this.#ask(`MKD ${folder}`, signal)
  }

  async #hasMlsd(signal: AbortSignal): Promise<boolean> {
    const session = await this.#pool.take(signal)
    this.#pool.release(session, true)
    return session.hasMlsd
  }

  /** A command without data, and what the server says to it. */
  async #ask(command: string, signal: AbortSignal): Promise<FTPResponse> {
    const session = await this.#pool.take(signal)
    let sound = false
    try {
      const answer = await session.command(command)
      sound = true
      return answer
    } finally {
      this.#pool.release(session, sound)
    }
  }
}
