// `sftp://` and `ssh://` in a `remote-file-system` block, with the settings of fsspec's SFTPFileSystem.
//
// One connection, many requests in flight: SFTP numbers them, so nobody waits for the one before.

import { randomBytes } from 'node:crypto'
import { posix } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { FileEntryWithStats, SFTPWrapper, Stats } from 'ssh2'
import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { EachOnce } from './each-once.ts'
import { takeLogin } from './http-login.ts'
import { joinBelow } from './paths.ts'
import type { RemoteUrl } from './protocols.ts'
import { ask, readAhead, tell } from './sftp-requests.ts'
import { openSsh, type SshPlace, type SshSession, sshError } from './sftp-session.ts'
import type { Content, Entry, FileEntry, FileSource, Remote, Target, Upload } from './source.ts'
import { StorageError } from './storage.ts'
import { walkFolders } from './walk-remote.ts'

/** Files at once; each has several requests under way. */
const connections = 64

const text = v.nullish(v.string())
const Settings = v.looseObject({
  host: text,
  port: v.nullish(v.pipe(v.union([v.number(), v.string()]), v.transform(Number), v.integer())),
  username: text,
  password: text,
  key_filename: v.nullish(v.union([v.string(), v.array(v.string())])),
  passphrase: text,
  allow_agent: v.nullish(v.boolean()),
  look_for_keys: v.nullish(v.boolean()),
  host_key_policy: v.nullish(v.picklist(['auto_add', 'warning', 'reject'])),
})

export function openSftpUrl(
  { protocol, rest }: RemoteUrl,
  settings: Readonly<Record<string, unknown>>,
  context: StorageContext,
): Remote {
  const fields = readFields(`remote-file-system (${protocol})`, Settings, settings)
  const [authority = '', ...path] = rest.split('/')
  const url = URL.parse(`ssh://${authority}`)
  if (!url?.hostname) throw new StorageError(`Field "basepath" names no host: ${protocol}://host/folder`)
  const own = takeLogin(url)
  const username = fields.username || own?.username || context.environment.USER
  if (!username) throw new StorageError('No user is named: give "username" in the settings')
  const place: SshPlace = {
    host: fields.host || url.hostname,
    port: fields.port ?? (Number(url.port) || 22),
    username,
    password: fields.password || own?.password || undefined,
    keyFiles: [fields.key_filename ?? []].flat(),
    passphrase: fields.passphrase || undefined,
    allowAgent: fields.allow_agent ?? true,
    looksForKeys: fields.look_for_keys ?? true,
    unknownHost: ({ auto_add: 'accept', warning: 'warn', reject: 'reject' } as const)[
      fields.host_key_policy ?? 'auto_add'
    ],
  }
  const open = (from: string | undefined) => new SftpFolder(place, `/${joinBelow(path.join('/'), from)}`, context)
  return { folder: open, target: open }
}

class SftpFolder implements FileSource, Target {
  readonly kind = 'files'
  readonly connections = connections
  readonly place: string
  readonly credentials: string
  readonly identity: readonly unknown[]
  readonly #place: SshPlace
  /** Absolute. */
  readonly #top: string
  readonly #context: StorageContext
  #session: Promise<SshSession> | undefined
  readonly #folders = new EachOnce()
  /** Folders that could not be made, for most because they are there; the outermost first. */
  readonly #unmade = new Map<string, StorageError>()

  constructor(place: SshPlace, top: string, context: StorageContext) {
    this.#place = place
    this.#top = top
    this.#context = context
    this.place = `SFTP folder ${top} at ${place.host}:${place.port}`
    this.credentials = describeLogin(place)
    this.identity = ['sftp', place, top]
  }

  list(signal: AbortSignal): AsyncGenerator<readonly Entry[]> {
    return walkFolders((path, signal) => this.#readFolder(path, signal), connections, signal)
  }

  async open(file: FileEntry, offset: number, signal: AbortSignal): Promise<Content> {
    const sftp = await this.#connect(signal)
    const handle = await ask<Buffer>(`Opening "${file.path}"`, done => sftp.open(file.ref, 'r', done))
    return { offset, stream: readAhead(sftp, handle, file, offset, signal) }
  }

  async read(path: string, offset: number, signal: AbortSignal): Promise<Content> {
    const ref = posix.join(this.#top, path)
    const sftp = await this.#connect(signal)
    const { size, mtime } = await ask<Stats>(`Looking at "${path}"`, done => sftp.stat(ref, done))
    const validator = `${mtime}/${size}`
    return { ...(await this.open({ kind: 'file', path, size, validator, ref }, offset, signal)), validator }
  }

  /** Beside it and then over it by a rename, which only OpenSSH's extension does; elsewhere what is there goes first. */
  async write(path: string, upload: Upload, signal: AbortSignal): Promise<void> {
    const sftp = await this.#connect(signal)
    const target = posix.join(this.#top, path)
    await this.#makeFolder(sftp, posix.dirname(target))
    // Not the file's own name and more: that may be as long as a name can be.
    const partial = posix.join(posix.dirname(target), `.rigel-${randomBytes(8).toString('hex')}`)
    const content = await upload.open()
    const stream = sftp.createWriteStream(partial, { mode: upload.mode & 0o777 })
    try {
      await pipeline(content instanceof Uint8Array ? [content] : content, stream, { signal })
      await tell(`Writing "${path}"`, done => sftp.ext_openssh_rename(partial, target, done)).catch(async () => {
        await tell('', done => sftp.unlink(target, done)).catch(() => undefined)
        await tell(`Writing "${path}"`, done => sftp.rename(partial, target, done))
      })
    } catch (error) {
      // Half a file under a name of its own; what is wrong with it has been thrown already.
      sftp.unlink(partial, () => undefined)
      throw this.#whyUnmade(target) ?? sshError(`Writing "${path}"`, error)
    }
  }

  /** The right that is missing on a folder, if that is why a file could not be written: for the file it is "no such file". */
  #whyUnmade(target: string): StorageError | undefined {
    for (const [folder, error] of this.#unmade) {
      if (target.startsWith(`${folder}/`) && /Permission denied/i.test(error.message)) return error
    }
    return undefined
  }

  async close(): Promise<void> {
    const session = await this.#session?.catch(() => undefined)
    session?.close()
  }

  /** The one connection, or a new one in the place of one that broke. */
  async #connect(signal: AbortSignal): Promise<SFTPWrapper> {
    if (!this.#session) {
      if (this.#context.meter) this.#context.meter.requests += 1
      const opening = openSsh(this.#place, this.#context, signal)
      const forget = () => {
        if (this.#session === opening) this.#session = undefined
      }
      opening.then(({ client }) => client.on('close', forget), forget)
      this.#session = opening
    }
    return (await this.#session).sftp
  }

  async #readFolder(path: string, signal: AbortSignal): Promise<readonly Entry[]> {
    const sftp = await this.#connect(signal)
    const at = posix.join(this.#top, path)
    const list = await ask<FileEntryWithStats[]>(`Listing "${at}"`, done => sftp.readdir(at, done)).catch(
      async error => {
        if (path === '' && error instanceof StorageError) await this.#refuseFile(sftp)
        throw error
      },
    )
    return Promise.all(list.map(item => this.#entryOf(sftp, path, item)))
  }

  async #entryOf(sftp: SFTPWrapper, folder: string, { filename, attrs }: FileEntryWithStats): Promise<Entry> {
    const path = folder === '' ? filename : `${folder}/${filename}`
    const ref = posix.join(this.#top, folder, filename.includes('/') ? '' : filename)
    if (attrs.isDirectory()) return { kind: 'folder', path }
    if (attrs.isFile()) return { kind: 'file', path, size: attrs.size, validator: `${attrs.mtime}/${attrs.size}`, ref }
    if (!attrs.isSymbolicLink()) throw new StorageError(`"${path}" is neither a file, a folder nor a link`)
    const target = await ask<string>(`Reading the link "${path}"`, done => sftp.readlink(ref, done))
    return { kind: 'link', path, target: this.#fromWithin(posix.dirname(ref), target) }
  }

  /**
   * An absolute link that stays inside means the same from where it lies. Not one with `..` in it, which may stand behind
   * another link; TreeNames refuses it.
   */
  #fromWithin(folder: string, target: string): string {
    const isInside = target === this.#top || target.startsWith(`${this.#top}/`)
    return isInside && !target.split('/').includes('..') ? posix.relative(folder, target) || '.' : target
  }

  async #refuseFile(sftp: SFTPWrapper): Promise<void> {
    const isFile = await ask<{ isFile(): boolean }>('', done => sftp.stat(this.#top, done)).then(
      stats => stats.isFile(),
      () => false,
    )
    if (isFile) throw new StorageError('It is a file, not a folder')
  }

  /** Each once; what is wrong with one is said when the file is written. */
  #makeFolder(sftp: SFTPWrapper, folder: string): Promise<void> {
    if (folder === '/') return Promise.resolve()
    return this.#folders.do(folder, async () => {
      await this.#makeFolder(sftp, posix.dirname(folder))
      await tell(`Making the folder "${folder}"`, done => sftp.mkdir(folder, done)).catch(error => {
        if (!(error instanceof StorageError)) throw error
        this.#unmade.set(folder, error)
      })
    })
  }
}

function describeLogin({ username, password, keyFiles }: SshPlace): string {
  const ways = [
    keyFiles.length > 0 ? 'key file of the block' : 'keys of this machine',
    ...(password ? ['password of the block'] : []),
  ]
  return `user "${username}" with ${ways.join(' and ')}`
}
