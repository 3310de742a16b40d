// Writes a new tree of the cache (manifest.ts) from files as they arrive, in any order.

import { type FileHandle, mkdir, open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ManifestBuilder } from './manifest.ts'

/** So much is gathered before it is written: one call for some hundred small files. */
const bufferBytes = 1024 * 1024

export class TreeWriter implements AsyncDisposable {
  readonly #directory: string
  readonly #pack: FileHandle
  readonly #manifest = new ManifestBuilder()
  #buffer: Uint8Array[] = []
  #buffered = 0
  #writing: Promise<void> = Promise.resolve()

  private constructor(directory: string, pack: FileHandle) {
    this.#directory = directory
    this.#pack = pack
  }

  /** `directory` exists, is empty and becomes the tree. */
  static async open(directory: string): Promise<TreeWriter> {
    await mkdir(join(directory, 'large'), { mode: 0o700 })
    return new TreeWriter(directory, await open(join(directory, 'pack'), 'wx', 0o600))
  }

  addFolder(path: string, mode: number): void {
    this.#manifest.addFolder(path, mode)
  }

  addLink(path: string, target: string): void {
    this.#manifest.addLink(path, target)
  }

  /** Keeps `bytes`, which must not change any more; resolves when there is room for the next. */
  async addSmall(file: { path: string; mode: number }, bytes: Uint8Array): Promise<void> {
    this.#manifest.addSmall(file, bytes)
    this.#buffer.push(bytes)
    this.#buffered += bytes.length
    if (this.#buffered >= bufferBytes) await this.#flush()
  }

  /** Where the next large file is to be written; then `addLarge` with its number. */
  nextLarge(): { readonly number: number; readonly path: string } {
    const number = this.#manifest.nextLarge()
    return { number, path: join(this.#directory, 'large', String(number)) }
  }

  addLarge(file: { path: string; mode: number; size: number; sha256: string; number: number }): void {
    this.#manifest.addLarge(file)
  }

  /** Completes the tree and gives its name. Not synced to disk: it is verified whenever it is read. */
  async finish(): Promise<string> {
    await this.#flush()
    const { text, id } = this.#manifest.finish()
    await writeFile(join(this.#directory, 'manifest.json'), text, { flag: 'wx', mode: 0o600 })
    return id
  }

  /** One write after the other, in the order in which the manifest gave the places. */
  async #flush(): Promise<void> {
    const chunks = this.#buffer
    this.#buffer = []
    this.#buffered = 0
    this.#writing = this.#writing.then(() => this.#pack.appendFile(Buffer.concat(chunks)))
    await this.#writing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A failed write was thrown to the one who caused it.
    await this.#writing.catch(() => undefined)
    await this.#pack.close()
  }
}
