// `smb` of Prefect 2 and 3: a folder on a Windows or Samba share, and the same for `smb://` URLs.
//
// smbclient needs four round trips for a file, one file after the other, so the files are dealt out to several of them.

import { mkdir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import * as v from 'valibot'
import { Scope } from '../async/scope.ts'
import { readFields } from './block-fields.ts'
import type { FetchLimits, StorageContext } from './context.ts'
import { findFullDisk } from './free-space.ts'
import { hashBytes } from './manifest.ts'
import { joinBelow } from './paths.ts'
import type { StorageBlock } from './registry.ts'
import { findFailure, quoteLocalPath, quotePath, SmbClient, type SmbShare, smbError } from './smb-client.ts'
import { CircleWatch, readListing } from './smb-listing.ts'
import { placeOf, SmbTarget } from './smb-target.ts'
import { ChangedError, type Entry, type FileEntry, type Remote, TransientError, type TreeSource } from './source.ts'
import { StorageError } from './storage.ts'
import { TreeNames } from './tree-names.ts'

/** On 2 cores and 20 ms away, 2,000 files of 4 KiB take half as long with 8 as with 4, and hardly less with 16. */
const maxClients = 8
/** Connecting costs as much as fetching some dozen files. */
const filesPerClient = 30

const text = v.nullish(v.string())
const Fields = v.object({
  share_path: v.pipe(v.string(), v.nonEmpty()),
  smb_username: text,
  smb_password: text,
  smb_host: v.pipe(v.string(), v.nonEmpty()),
  smb_port: v.nullish(v.pipe(v.union([v.number(), v.string()]), v.transform(Number), v.integer())),
})

export function openSmb(data: StorageBlock['data'], context: StorageContext): Remote {
  const fields = readFields('smb', Fields, data)
  return openSmbShare(
    {
      ...splitSharePath(fields.share_path),
      host: fields.smb_host.replace(/\/+$/, ''),
      port: fields.smb_port ?? undefined,
      ...splitUser(fields.smb_username),
      password: fields.smb_password || undefined,
      encrypt: false,
    },
    context,
  )
}

export function splitSharePath(path: string): { readonly share: string; readonly base: string } {
  const [share = '', ...rest] = path.replace(/^\/+/, '').split('/')
  return { share, base: rest.join('/') }
}

/** `DOMAIN\user` and `DOMAIN;user`. */
export function splitUser(name: string | null | undefined): Pick<SmbShare, 'username' | 'domain'> {
  if (!name) return { username: undefined, domain: undefined }
  const [, domain, user] = /^([^\\;]+)[\\;](.+)$/.exec(name) ?? []
  return { username: user ?? name, domain }
}

export function openSmbShare(
  { base, ...share }: SmbShare & { readonly base: string },
  context: StorageContext,
): Remote {
  if (!/^[\w.:[\]-]+$/.test(share.host)) throw new StorageError('The name of the SMB host is not one')
  if (share.share === '' || /["\\/*?<>|:\n\r\0]/.test(share.share)) throw new StorageError('No SMB share is named')
  return {
    folder: from => new SmbFolder(share, joinBelow(base, from), context),
    target: to => new SmbTarget(share, joinBelow(base, to), context),
  }
}

class SmbFolder implements TreeSource {
  readonly kind = 'tree'
  readonly place: string
  readonly credentials: string
  readonly identity: readonly unknown[]
  readonly #folder: string
  readonly #limits: FetchLimits
  readonly #client: SmbClient
  #entries: readonly Entry[] = []

  constructor(share: SmbShare, folder: string, context: StorageContext) {
    this.#folder = folder
    this.#limits = context.limits
    this.#client = new SmbClient(share, context)
    const { place, credentials } = placeOf(share, folder)
    this.place = place
    this.credentials = credentials
    this.identity = ['smb', share, folder]
  }

  /** Times are whole seconds: a change that keeps a file's size within the second of the one before is not seen. */
  async revision(signal: AbortSignal): Promise<string> {
    this.#entries = await this.#list(signal)
    const lines = this.#entries.map(entry =>
      JSON.stringify([entry.path, entry.kind, entry.kind === 'file' && entry.validator]),
    )
    return hashBytes(Buffer.from(lines.toSorted().join('\n')))
  }

  async fetchTree(_revision: string | undefined, to: string, signal: AbortSignal): Promise<void> {
    const files: FileEntry[] = []
    for (const entry of this.#entries) {
      if (entry.kind === 'folder') await mkdir(join(to, entry.path), { recursive: true })
      if (entry.kind === 'file') files.push(entry)
    }
    for (const folder of new Set(files.map(file => dirname(file.path))))
      await mkdir(join(to, folder), { recursive: true })
    let missing = files
    for (let before = Number.POSITIVE_INFINITY; missing.length > 0; ) {
      const said = await this.#download(missing, to, signal)
      const { rest, bytes } = await findMissing(files, to)
      // A connection that is cut again and again still gets there as long as each try brings something.
      if (rest.length > 0 && bytes >= before)
        throw (await findFullDisk(to, bytes)) ?? said ?? new TransientError('smbclient broke off without a word')
      missing = rest
      before = bytes
    }
  }

  async close(): Promise<void> {
    // Each smbclient ends by itself.
  }

  /** All entries, judged: smbclient will write by itself. */
  async #list(signal: AbortSignal): Promise<readonly Entry[]> {
    const pattern = this.#folder === '' ? '"\\*"' : `${quotePath(this.#folder).slice(0, -1)}\\*"`
    const watch = new CircleWatch(this.#folder)
    const hear = (chunk: Buffer) => watch.hear(chunk)
    const said = await this.#client.run(['recurse ON', `ls ${pattern}`], signal, hear)
    const entries = readListing(said, this.#folder)
    const names = new TreeNames(this.#limits)
    const folded = new Set<string>()
    for (const entry of entries) {
      names.add(entry)
      quotePath(entry.path)
      if (entry.kind !== 'file') continue
      // A short name is shown without blanks at its end, and a server without such a name gives the one in other letters.
      const alike = `${entry.path.toUpperCase()}/${entry.size}`
      if (folded.has(alike))
        throw new StorageError(`"${entry.path}" is there twice, but for upper and lower case, and as large`)
      folded.add(alike)
    }
    if (names.isEmpty) throw new StorageError('There is nothing below it')
    return entries
  }

  /** Gives the first failure, unless it is one of this program. */
  async #download(files: readonly FileEntry[], to: string, signal: AbortSignal): Promise<Error | undefined> {
    const clients = Math.min(maxClients, Math.ceil(files.length / filesPerClient))
    const scope = new Scope(signal)
    let failure: Error | undefined
    for (let at = 0; at < clients; at++) {
      const share = files.filter((_, index) => index % clients === at)
      scope.spawn(async signal => {
        try {
          const commands = share.map(file => this.#getCommand(file, to))
          const said = await this.#client.run(commands, signal)
          if (findFailure(said)) failure ??= smbError('Reading', Buffer.from(said, 'latin1').toString('utf8'))
        } catch (error) {
          if (!(error instanceof TransientError)) throw error
          failure ??= error
        }
      })
    }
    await scope.join()
    return failure
  }

  /** `reget` goes on where an earlier try broke off. */
  #getCommand(file: FileEntry, to: string): string {
    const remote = [this.#folder, file.path].filter(part => part !== '').join('/')
    return `reget ${quotePath(remote)} ${quoteLocalPath(join(to, file.path))}`
  }
}

async function findMissing(files: readonly FileEntry[], to: string): Promise<{ rest: FileEntry[]; bytes: number }> {
  const rest: FileEntry[] = []
  let bytes = 0
  for (const file of files) {
    const size = (await stat(join(to, file.path)).catch(() => undefined))?.size
    if (size !== undefined && size > (file.size ?? 0))
      throw new ChangedError(`"${file.path}" is larger than it was listed`)
    bytes += (file.size ?? 0) + 1 - (size ?? -1)
    if (size !== file.size) rest.push(file)
  }
  return { rest, bytes }
}
