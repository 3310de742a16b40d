// Makes a workspace from a tree of the cache, and verifies every byte on the way. Runs in the tree worker.

import {
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  fchmodSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  symlinkSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { blameOf } from './blame.ts'
import { hashFile } from './file-hash.ts'
import { defaultFolderMode, hashBytes, type ManifestEntry, readManifest } from './manifest.ts'
import { StorageError } from './storage.ts'
import type { TreeSize } from './walk-tree.ts'

export interface UnpackJob {
  /** Folder of the tree in the cache, and its name there. */
  readonly tree: string
  readonly id: string
  /** Existing, empty folder; undefined: only verify. */
  readonly to: string | undefined
}

/** A tree of the cache is damaged or gone: to be fetched again, nobody's fault. */
export class DamagedTreeError extends Error {
  constructor(message: string, options?: { cause: unknown }) {
    super(message, options)
    this.name = 'DamagedTreeError'
  }
}

type Small = Extract<ManifestEntry, { kind: 'small' }>
type Large = Extract<ManifestEntry, { kind: 'large' }>

/** Throws a DamagedTreeError when the cache is at fault. */
export function unpackTree({ tree, id, to }: UnpackJob, isCancelled: () => boolean): TreeSize {
  const entries = fromCache(() => readManifest(readFileSync(join(tree, 'manifest.json'), 'utf8'), id))
  if (!entries) throw new DamagedTreeError('its manifest does not fit its name')
  const pack = fromCache(() => openSync(join(tree, 'pack'), 'r'))
  const folders = new Folders(to)
  let bytes = 0
  try {
    for (const entry of entries) {
      if (isCancelled()) throw new StorageError('Making the workspace was stopped')
      if (entry.kind === 'folder') folders.make(entry.path, entry.mode)
      else if (entry.kind === 'small') copySmall(pack, entry, folders.pathOf(entry.path))
      else if (entry.kind === 'large')
        copyLarge(join(tree, 'large', String(entry.number)), entry, folders.pathOf(entry.path))
      if ('size' in entry) bytes += entry.size
    }
  } finally {
    closeSync(pack)
  }
  // Links come last, so that nothing can be written through one.
  for (const entry of entries) {
    const path = entry.kind === 'link' ? folders.pathOf(entry.path) : undefined
    if (entry.kind === 'link' && path !== undefined) symlinkSync(entry.target, path)
  }
  folders.setModes()
  return { files: entries.length, bytes }
}

function copySmall(pack: number, entry: Small, path: string | undefined): void {
  const bytes = Buffer.allocUnsafe(entry.size)
  const read = entry.size === 0 ? 0 : fromCache(() => readSync(pack, bytes, 0, entry.size, entry.offset))
  if (read !== entry.size || hashBytes(bytes) !== entry.sha256) throw new DamagedTreeError(`"${entry.path}" is damaged`)
  if (path === undefined) return
  const file = openSync(path, 'wx', entry.mode)
  try {
    for (let written = 0; written < bytes.length; ) written += writeSync(file, bytes, written)
    // Whatever the umask of the agent is.
    fchmodSync(file, entry.mode)
  } finally {
    closeSync(file)
  }
}

/** What is verified is the copy, for it is what will be used. */
function copyLarge(stored: string, entry: Large, path: string | undefined): void {
  if (path !== undefined)
    fromCache(() => copyFileSync(stored, path, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE))
  const { sha256 } = fromCache(() => hashFile(path ?? stored))
  if (sha256 !== entry.sha256) throw new DamagedTreeError(`"${entry.path}" is damaged`)
  if (path !== undefined) chmodSync(path, entry.mode)
}

/** Makes each folder once. */
class Folders {
  readonly #root: string | undefined
  readonly #made = new Set(['.'])
  readonly #modes = new Map<string, number>()

  constructor(root: string | undefined) {
    this.#root = root
  }

  make(path: string, mode: number): void {
    this.#modes.set(path, mode)
    this.#makeAll(path)
  }

  /** Where an entry goes, in a folder that exists; undefined when nothing is written. */
  pathOf(path: string): string | undefined {
    if (this.#root === undefined) return undefined
    this.#makeAll(dirname(path))
    return join(this.#root, path)
  }

  /** At the end: a folder may be closed to writing. Inner folders first, for an outer one may be closed to passing. */
  setModes(): void {
    if (this.#root === undefined) return
    this.#made.delete('.')
    for (const path of [...this.#made].toReversed())
      chmodSync(join(this.#root, path), this.#modes.get(path) ?? defaultFolderMode)
  }

  #makeAll(path: string): void {
    if (this.#root === undefined || this.#made.has(path)) return
    this.#makeAll(dirname(path))
    mkdirSync(join(this.#root, path), { mode: 0o700 })
    this.#made.add(path)
  }
}

/** Reading the cache: what fails here is the cache's fault, but not when this host is out of something. */
function fromCache<T>(read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (blameOf(error) === 'host') throw error
    throw new DamagedTreeError('it cannot be read', { cause: error })
  }
}
