// Writes files to a share: what is asked for at the same time goes to one smbclient, for each costs a connection.

import { createReadStream } from 'node:fs'
import { mkdtemp, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { dirname } from 'node:path/posix'
import { sleep } from '../async/sleep.ts'
import type { StorageContext } from './context.ts'
import { EachOnce } from './each-once.ts'
import { findFullDisk } from './free-space.ts'
import { findFailure, quoteLocalPath, quotePath, SmbClient, type SmbShare, smbError } from './smb-client.ts'
import { readListing } from './smb-listing.ts'
import { ChangedError, type Content, type FileEntry, type Target, TransientError, type Upload } from './source.ts'
import { StorageError } from './storage.ts'
import { removeTree } from './workspace.ts'

/** So long the first of a batch waits for others. */
const gatherMs = 5
const largestBatch = 32

export function placeOf(share: SmbShare, folder: string): Pick<Target, 'place' | 'credentials'> {
  const port = share.port === undefined ? '' : `:${share.port}`
  return {
    place: `SMB folder //${share.host}${port}/${share.share}/${folder}`,
    credentials: share.username === undefined ? 'anonymous' : 'user and password of the block',
  }
}

interface Waiting {
  readonly command: string
  readonly resolve: (said: string) => void
  readonly reject: (error: unknown) => void
}

export class SmbTarget implements Target {
  readonly connections = 8 * largestBatch
  readonly place: string
  readonly credentials: string
  readonly #folder: string
  readonly #client: SmbClient
  readonly #folders = new EachOnce()
  #waiting: Waiting[] = []
  #temporary: Promise<string> | undefined
  #serial = 0

  constructor(share: SmbShare, folder: string, context: StorageContext) {
    const { place, credentials } = placeOf(share, folder)
    this.place = place
    this.credentials = credentials
    this.#folder = folder
    this.#client = new SmbClient(share, context)
  }

  async read(path: string, _offset: number, signal: AbortSignal): Promise<Content> {
    const remote = this.#pathOf(path)
    const local = await this.#name()
    const { size, validator } = await this.look(path, signal)
    for (let before = -1; ; ) {
      const got = await this.#client.run([`reget ${quotePath(remote)} ${quoteLocalPath(local)}`], signal)
      const arrived = (await stat(local).catch(() => undefined))?.size ?? -1
      if (arrived === size) break
      // As long as each connection brings something, it still gets there.
      if (arrived <= before) {
        const full = await findFullDisk(dirname(local), (size ?? 0) - arrived)
        if (full) throw full
        throw findFailure(got)
          ? smbError(`Reading "${path}"`, got)
          : new TransientError('smbclient broke off without a word')
      }
      before = arrived
    }
    if ((await this.look(path, signal)).validator !== validator) throw new ChangedError(`"${path}" has changed`)
    return { offset: 0, stream: createReadStream(local), validator }
  }

  async look(path: string, signal: AbortSignal): Promise<FileEntry> {
    const remote = this.#pathOf(path)
    const said = await this.#client.run([`ls ${quotePath(remote)}`], signal)
    const entry = readListing(said, dirname(remote), false).find(({ kind }) => kind === 'file')
    if (entry?.kind !== 'file') throw new StorageError('It is not a file')
    return entry
  }

  async write(path: string, upload: Upload, signal: AbortSignal): Promise<void> {
    const remote = this.#pathOf(path)
    await this.#makeFolder(dirname(remote), signal)
    const local = await this.#name()
    // Under a name of ours, for there may be quotes in the file's own.
    if (upload.file === undefined) await writeFile(local, await upload.open(), { mode: 0o600 })
    else await symlink(upload.file, local)
    const said = await this.#gather(`put "${local}" ${quotePath(remote)}`, signal)
    if (findFailure(said)) throw smbError(`Writing "${path}"`, said)
  }

  async close(): Promise<void> {
    if (this.#temporary) await removeTree(await this.#temporary)
  }

  #pathOf(path: string): string {
    return [this.#folder, path].filter(part => part !== '').join('/')
  }

  /** In a folder that nobody else may look into. */
  async #name(): Promise<string> {
    this.#temporary ??= mkdtemp(join(tmpdir(), 'rigel-smb-'))
    return join(await this.#temporary, String(this.#serial++))
  }

  #makeFolder(folder: string, signal: AbortSignal): Promise<void> {
    if (folder === '.' || folder === '') return Promise.resolve()
    return this.#folders.do(folder, async () => {
      await this.#makeFolder(dirname(folder), signal)
      const said = await this.#gather(`mkdir ${quotePath(folder)}`, signal)
      const failure = findFailure(said)
      if (failure && !failure.includes('OBJECT_NAME_COLLISION')) throw smbError(`Making the folder "${folder}"`, said)
    })
  }

  /** What is said to this one command. Of a batch in which something fails, each is done again by itself. */
  async #gather(command: string, signal: AbortSignal): Promise<string> {
    const answer = Promise.withResolvers<string>()
    this.#waiting.push({ command, resolve: answer.resolve, reject: answer.reject })
    if (this.#waiting.length === 1) {
      await sleep(gatherMs, signal)
      const waiting = this.#waiting
      this.#waiting = []
      for (let at = 0; at < waiting.length; at += largestBatch) {
        void this.#send(waiting.slice(at, at + largestBatch), signal)
      }
    }
    const said = await answer.promise
    return findFailure(said) ? this.#client.run([command], signal) : said
  }
  /** Never rejects: each of the batch hears for itself. */
  async #send(batch: readonly Waiting[], signal: AbortSignal): Promise<void> {
    try {
      const commands = batch.map(item => item.command)
      const said = await this.#client.run(commands, signal)
      for (const item of batch) item.resolve(said)
    } catch (error) {
      for (const item of batch) item.reject(error)
    }
  }
}
