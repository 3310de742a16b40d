// Writes to a folder of this machine: each file appears whole, by a rename; links that lie there are replaced, never followed.

import { randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { chmod, mkdir, open, realpath, rename, rm, stat, symlink } from 'node:fs/promises'
import { dirname, join, relative, sep } from 'node:path'
import { errorCode } from '../errors.ts'
import type { Content, Target, Upload } from './source.ts'
import { StorageError } from './storage.ts'

export class LocalTarget implements Target {
  readonly connections = 8
  readonly credentials = 'rights of this user'
  readonly place: string
  readonly #base: string

  /** `base` is the block's base path, which may be missing still; `folder` is below it. Both absolute. */
  constructor(base: string, folder: string) {
    this.#base = base
    this.place = folder
  }

  async read(path: string): Promise<Content> {
    const file = join(this.place, path)
    await this.#keepInside(dirname(file))
    const found = await stat(file).catch((error: unknown) => {
      throw errorCode(error) === 'ENOENT' ? new StorageError('There is no such file', { cause: error }) : error
    })
    if (!found.isFile()) throw new StorageError('It is not a file')
    await this.#keepInside(await realpath(file))
    return { offset: 0, stream: createReadStream(file) }
  }

  async write(path: string, upload: Upload): Promise<void> {
    await this.#replace(path, async partial => {
      const content = await upload.open()
      await using handle = await open(partial, 'wx', 0o600)
      await handle.writeFile(content)
      await handle.chmod(upload.mode)
    })
  }

  async makeFolder(path: string, mode: number): Promise<void> {
    const folder = join(this.place, path)
    await mkdir(folder, { recursive: true })
    await this.#keepInside(folder)
    // Ours to write into, whatever the source says.
    await chmod(folder, mode | 0o700)
  }

  async makeLink(path: string, text: string): Promise<void> {
    await this.#replace(path, partial => symlink(text, partial))
  }

  close(): Promise<void> {
    return Promise.resolve()
  }

  async #replace(path: string, write: (partial: string) => Promise<void>): Promise<void> {
    const file = join(this.place, path)
    const folder = dirname(file)
    await mkdir(folder, { recursive: true })
    await this.#keepInside(folder)
    const partial = join(folder, `.rigel-${randomBytes(8).toString('hex')}`)
    try {
      await write(partial)
      await rename(partial, file)
    } catch (error) {
      await rm(partial, { force: true })
      if (errorCode(error) === 'EISDIR') throw new StorageError(`"${path}" is a folder there`, { cause: error })
      throw error
    }
  }

  /** A folder on the way may be a link to elsewhere. */
  async #keepInside(path: string): Promise<void> {
    const way = relative(await realpath(this.#base), await realpath(path))
    if (way === '..' || way.startsWith(`..${sep}`))
      throw new StorageError(`"${path}" is a link that leads out of the base path`)
  }
}
