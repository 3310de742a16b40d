// Brings the files of a FileSource into a tree of the cache: many at once, each tried again or resumed after a cut, files
// that have not changed since last time taken from the tree before.

import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { Scope } from '../async/scope.ts'
import { askSource } from './cache-trouble.ts'
import type { FetchLimits, Meter } from './context.ts'
import { defaultFileMode, defaultFolderMode, largeBytes } from './manifest.ts'
import { withResumes } from './retry.ts'
import type { Reuse } from './reuse.ts'
import type { ArrivedValidator, ArrivedValidators } from './snapshot.ts'
import type { Content, Entry, FileEntry, FileSource } from './source.ts'
import { ChangedError, TransientError } from './source.ts'
import { StorageError } from './storage.ts'
import type { TreeWriter } from './tree-writer.ts'

export interface Download {
  readonly source: FileSource
  readonly entries: readonly Entry[]
  readonly writer: TreeWriter
  readonly reuse: Reuse
  readonly limits: FetchLimits
  readonly meter: Meter
}

interface Running extends Download {
  /** Bytes of all files that have arrived for the first time; what is sent again after a restart does not count. */
  readonly progress: { bytes: number }
  readonly arrived: Map<string, ArrivedValidator>
}

/**
 * Returns when everything is in the writer, with the validators that have come with the contents. Rejects with the first
 * failure; then the writer's folder is of no use.
 */
export async function download(task: Download, signal: AbortSignal): Promise<ArrivedValidators> {
  const files: FileEntry[] = []
  for (const entry of task.entries) {
    if (entry.kind === 'file') files.push(entry)
    else if (entry.kind === 'folder') task.writer.addFolder(entry.path, entry.mode ?? defaultFolderMode)
    else task.writer.addLink(entry.path, entry.target)
  }
  const queue = files.values()
  const running = { ...task, progress: { bytes: 0 }, arrived: new Map<string, ArrivedValidator>() }
  const scope = new Scope(signal)
  for (let at = 0; at < Math.min(task.source.connections, files.length); at++) {
    scope.spawn(async signal => {
      // One iterator for all of them: each takes the next file.
      for (const file of queue) await bring(running, file, signal)
    })
  }
  await scope.join()
  return running.arrived
}

async function bring(task: Running, file: FileEntry, signal: AbortSignal): Promise<void> {
  const known = await task.reuse.bytesOf(file)
  if (known) await task.writer.addSmall({ path: file.path, mode: file.mode ?? defaultFileMode }, known)
  else task.arrived.set(file.path, await fetchFile(task, file, signal))
  task.meter.files += 1
}

async function fetchFile(task: Running, file: FileEntry, signal: AbortSignal): Promise<ArrivedValidator> {
  await using arriving = new ArrivingFile(task, file)
  let said: ArrivedValidator = {}
  const bringRest = async () => {
    // What it goes on with has to be of the file that it began with.
    const validator = file.validatorComes ? said.validator : file.validator
    const content = await askSource(() => task.source.open({ ...file, validator }, arriving.size, signal))
    // The answer about a rest says less.
    if (content.offset === 0) said = { validator: content.validator, sign: content.sign }
    await arriving.receive(content)
    await arriving.finish()
    return said
  }
  // Of whatever file: this one may have had no turn yet on a connection that all share, or always come late to it.
  return await withResumes(bringRest, () => task.progress.bytes, signal)
}

/** One file on its way: small ones are gathered in memory, what grows large is written to a file of its own. */
class ArrivingFile implements AsyncDisposable {
  readonly #task: Running
  readonly #file: FileEntry
  #chunks: Uint8Array[] = []
  #large: { readonly number: number; readonly handle: FileHandle } | undefined
  #hash = createHash('sha256')
  /** The largest size that it has had. */
  #furthest = 0
  size = 0

  constructor(task: Running, file: FileEntry) {
    this.#task = task
    this.#file = file
  }

  async receive(content: Content): Promise<void> {
    if (content.offset !== this.size) await this.#restart()
    const { size } = this.#file
    if (size !== undefined && size <= largeBytes && content.bytes && this.size === 0) {
      await this.#take(await content.bytes(size))
      return
    }
    for await (const chunk of content.stream) await this.#take(chunk)
  }

  async finish(): Promise<void> {
    const { size, path, mode = defaultFileMode } = this.#file
    if (size !== undefined && this.size < size)
      throw new TransientError(`"${path}" broke off after ${this.size} of ${size} bytes`)
    if (size !== undefined && this.size > size) throw new ChangedError(`"${path}" is larger than it was listed`)
    if (!this.#large) {
      const [only] = this.#chunks
      await this.#task.writer.addSmall(
        { path, mode },
        this.#chunks.length === 1 && only ? only : Buffer.concat(this.#chunks),
      )
      return
    }
    this.#task.writer.addLarge({
      path,
      mode,
      size: this.size,
      sha256: this.#hash.digest('hex'),
      number: this.#large.number,
    })
  }

  async #take(chunk: Uint8Array): Promise<void> {
    this.size += chunk.length
    this.#task.meter.bytes += chunk.length
    if (this.size > this.#furthest) {
      this.#task.progress.bytes += this.size - this.#furthest
      this.#furthest = this.size
    }
    if (this.#file.size === undefined) keepByteLimit(this.size, this.#task.limits)
    else if (this.size > this.#file.size) throw new ChangedError(`"${this.#file.path}" is larger than it was listed`)
    if (!this.#large && this.size <= largeBytes) {
      this.#chunks.push(chunk)
      return
    }
    this.#large ??= await this.#spill()
    this.#hash.update(chunk)
    await this.#large.handle.appendFile(chunk)
  }

  /** From memory to a file of its own. */
  async #spill(): Promise<{ number: number; handle: FileHandle }> {
    const { number, path } = this.#task.writer.nextLarge()
    // Always at its end, also when it has been cut back to nothing.
    const handle = await open(path, 'ax', 0o600)
    for (const chunk of this.#chunks) {
      this.#hash.update(chunk)
      await handle.appendFile(chunk)
    }
    this.#chunks = []
    return { number, handle }
  }

  /** The server could not resume: all of it again. */
  async #restart(): Promise<void> {
    this.size = 0
    this.#chunks = []
    this.#hash = createHash('sha256')
    await this.#large?.handle.truncate(0)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#large?.handle.close()
  }
}

/** For files whose size is only known when they have arrived; the others were counted when they were listed. */
function keepByteLimit(bytes: number, { maxBytes }: FetchLimits): void {
  if (bytes > maxBytes) throw new StorageError(`It holds more than the limit of ${maxBytes} bytes`)
}
