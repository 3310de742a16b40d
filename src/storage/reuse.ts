// Takes files that have not changed from the tree that was fetched before, so that one new file does not cost all.

import { type FileHandle, open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { hashBytes, type ManifestEntry, readManifest } from './manifest.ts'
import type { FileEntry } from './source.ts'

type Small = Extract<ManifestEntry, { kind: 'small' }>

/** A tree of the cache, and the validators that its files had. */
export interface PreviousTree {
  readonly path: string
  readonly id: string
  readonly validators: Readonly<Record<string, string>>
}

/** Small files only: the large ones are few, and a copy of them is not read in one go. */
export class Reuse implements AsyncDisposable {
  readonly #pack: FileHandle | undefined
  readonly #files: ReadonlyMap<string, Small>
  readonly #validators: Readonly<Record<string, string>>

  private constructor(
    pack: FileHandle | undefined,
    files: ReadonlyMap<string, Small>,
    validators: Readonly<Record<string, string>>,
  ) {
    this.#pack = pack
    this.#files = files
    this.#validators = validators
  }

  /** A tree that is gone or damaged gives nothing, and so does none. */
  static async open(previous: PreviousTree | undefined): Promise<Reuse> {
    const nothing = new Reuse(undefined, new Map(), {})
    if (!previous) return nothing
    const text = await readFile(join(previous.path, 'manifest.json'), 'utf8').catch(() => '')
    const entries = readManifest(text, previous.id)
    const pack = entries && (await open(join(previous.path, 'pack')).catch(() => undefined))
    if (!entries || !pack) return nothing
    const small = entries.flatMap(entry => (entry.kind === 'small' ? [[entry.path, entry] as const] : []))
    return new Reuse(pack, new Map(small), previous.validators)
  }

  /** The verified bytes of the file, or undefined when it is new, changed, large or damaged. */
  async bytesOf(file: FileEntry): Promise<Uint8Array | undefined> {
    const known = this.#files.get(file.path)
    if (!known || !this.#pack || file.validator === undefined) return undefined
    if (this.#validators[file.path] !== file.validator || known.size !== file.size) return undefined
    const bytes = Buffer.allocUnsafe(known.size)
    const { bytesRead } = await this.#pack.read(bytes, 0, known.size, known.offset)
    return bytesRead === known.size && hashBytes(bytes) === known.sha256 ? bytes : undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pack?.close()
  }
}
