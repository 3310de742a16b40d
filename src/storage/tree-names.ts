// Judges what a source lists before anything of it is written: names that would leave the folder, clashes, limits.

import { basename, dirname, join } from 'node:path/posix'
import type { FetchLimits } from './context.ts'
import type { Entry } from './source.ts'
import { StorageError } from './storage.ts'

/** No file system of ours takes longer names; found out before the first write instead of in the middle. */
const maxSegmentBytes = 255
const maxPathBytes = 3000
/** What decoding leaves of bytes that are not UTF-8: two names may have become one, and neither is the server's. */
const unreadable = '\ufffd'

/** Give it all entries, then nothing that they name can be outside of the folder or in each other's way. */
export class TreeNames {
  readonly #limits: FetchLimits
  readonly #kinds = new Map<string, Entry['kind']>()
  #bytes = 0

  constructor(limits: FetchLimits) {
    this.#limits = limits
  }

  get isEmpty(): boolean {
    return this.#kinds.size === 0
  }

  /** Throws a StorageError that names the entry. */
  add(entry: Entry): void {
    checkPath(entry.path)
    if (entry.kind === 'link') checkTarget(entry.path, entry.target)
    this.#addFolders(dirname(entry.path))
    const known = this.#kinds.get(entry.path)
    if (known !== undefined && !(known === 'folder' && entry.kind === 'folder')) {
      throw new StorageError(`"${entry.path}" is there twice, as ${known} and as ${entry.kind}`)
    }
    this.#kinds.set(entry.path, entry.kind)
    if (entry.kind === 'file') this.#bytes += entry.size ?? 0
    if (this.#kinds.size > this.#limits.maxFiles) {
      throw new StorageError(`It holds more than the limit of ${this.#limits.maxFiles} files`)
    }
    this.checkBytes(this.#bytes)
  }

  /** For sizes that are only known while they arrive. */
  checkBytes(bytes: number): void {
    if (bytes > this.#limits.maxBytes)
      throw new StorageError(`It holds more than the limit of ${this.#limits.maxBytes} bytes`)
  }

  #addFolders(folder: string): void {
    for (let path = folder; path !== '.'; path = dirname(path)) {
      const known = this.#kinds.get(path)
      if (known === 'folder') return
      if (known !== undefined) throw new StorageError(`"${path}" is there twice, as ${known} and as folder`)
      this.#kinds.set(path, 'folder')
    }
  }
}

function checkPath(path: string): void {
  if (path.includes(unreadable)) {
    throw new StorageError(`The name ${JSON.stringify(path)} has bytes in it that are not UTF-8: nothing was written`)
  }
  const bad = path.split('/').find(part => part === '' || part === '.' || part === '..' || part.includes('\0'))
  if (bad !== undefined) {
    const trouble = bad === '' ? 'an empty part' : bad.includes('\0') ? 'a NUL byte' : `"${bad}"`
    throw new StorageError(
      `The name ${JSON.stringify(path)} has ${trouble} in it and could lead out of the folder: nothing was written`,
    )
  }
  if (Buffer.byteLength(basename(path)) > maxSegmentBytes || Buffer.byteLength(path) > maxPathBytes) {
    throw new StorageError(`The name ${JSON.stringify(path)} is longer than a file system takes: nothing was written`)
  }
}

/** `..` after a name could go through another link, so only leading ones are counted, the others refused. */
function checkTarget(path: string, target: string): void {
  if (target.includes(unreadable))
    throw new StorageError(`Link "${path}" points to "${target}", which is not UTF-8: nothing was written`)
  const end = join(dirname(path), target)
  const turns = /(?:^|\/)(?!\.\.?(?:\/|$))[^/]+\/(?:.*\/)?\.\.(?:\/|$)/.test(target)
  if (
    target.startsWith('/') ||
    end === '..' ||
    end.startsWith('../') ||
    turns ||
    target === '' ||
    target.includes('\0')
  ) {
    throw new StorageError(`Link "${path}" points to "${target}", outside of the tree: nothing was written`)
  }
}
