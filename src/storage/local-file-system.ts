// `local-file-system`: a folder on this machine, and the same without a block for deployments that have only a path.
//
// As Prefect's filesystems.py, but paths that leave the base path are refused, and links are kept instead of followed.

import { realpath, stat } from 'node:fs/promises'
import { isAbsolute, join, relative, resolve, sep } from 'node:path'
import * as v from 'valibot'
import { storageError } from './blame.ts'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { LocalTarget } from './local-target.ts'
import type { StorageBlock } from './registry.ts'
import { type Storage, StorageError, type WritableStorage } from './storage.ts'
import { withTimeLimit } from './time-limit.ts'
import { runTreeJob } from './tree-thread.ts'
import { writesOf } from './write-storage.ts'

const Fields = v.object({ basepath: v.nullish(v.string(), null) })

/** Throws a StorageError when a field is unsound. */
export function openLocalFileSystem(data: StorageBlock['data'], context: StorageContext): WritableStorage {
  const { basepath } = readFields('local-file-system', Fields, data)
  const what = `storage block of type "local-file-system" with base path "${basepath ?? ''}"`
  const local = new LocalFileSystem(basepath || undefined, what, context)
  return {
    getDirectory: (from, to, signal) => local.getDirectory(from, to, signal),
    ...writesOf(to => local.target(to), context),
  }
}

/** The folder that a deployment without a storage block names in `path`. */
export function openLocalPath(path: string, context: StorageContext): Storage {
  return new LocalFileSystem(path, `path "${path}" of a deployment without storage block`, context)
}

class LocalFileSystem implements Storage {
  readonly #base: string | undefined
  readonly #what: string
  readonly #context: StorageContext

  constructor(basepath: string | undefined, what: string, context: StorageContext) {
    this.#base = basepath === undefined ? undefined : expandHome(basepath, context.home)
    this.#what = what
    this.#context = context
    if (this.#base !== undefined && !isAbsolute(this.#base)) {
      throw new StorageError(
        `Cannot fetch from ${what}: it is relative, and an agent has no folder of its own to start from`,
      )
    }
  }

  async getDirectory(from: string | undefined, to: string, signal: AbortSignal): Promise<void> {
    const source = await this.#resolve(from)
    const { limits } = this.#context
    try {
      await withTimeLimit(limits, signal, signal => runTreeJob({ kind: 'copy', from: source, to, limits }, signal))
    } catch (error) {
      signal.throwIfAborted()
      throw storageError(`Could not fetch "${source}" from ${this.#what}`, error)
    }
  }

  /** The folder need not exist yet. Throws when it is outside of the base path. */
  target(to: string | undefined): LocalTarget {
    const { path, wanted } = this.#join(to)
    const base = this.#base ?? path
    if (leaves(base, path)) throw new StorageError(this.#outside(wanted))
    return new LocalTarget(base, path)
  }

  /** The real path of the folder that is meant. Throws when it is missing or outside of the base path. */
  async #resolve(from: string | undefined): Promise<string> {
    const base = this.#base
    const { path, wanted } = this.#join(from)
    try {
      const source = await realpath(path)
      if (base !== undefined && leaves(await realpath(base), source)) throw new StorageError(this.#outside(wanted))
      if (!(await stat(source)).isDirectory())
        throw new StorageError(`Cannot fetch from ${this.#what}: "${path}" is not a folder`)
      return source
    } catch (error) {
      if (error instanceof StorageError) throw error
      // Said first: whether something outside exists is nobody's business.
      if (base !== undefined && leaves(base, path)) throw new StorageError(this.#outside(wanted))
      throw storageError(`Cannot fetch from ${this.#what}: folder "${path}" cannot be read on this machine`, error)
    }
  }

  #join(path: string | undefined): { readonly path: string; readonly wanted: string } {
    const wanted = expandHome(path || '', this.#context.home)
    if (this.#base === undefined && !isAbsolute(wanted)) {
      throw new StorageError(
        `Cannot use "${wanted}" from ${this.#what}: neither the block nor the deployment names an absolute path`,
      )
    }
    return { path: this.#base === undefined ? wanted : resolve(this.#base, wanted), wanted }
  }

  #outside(wanted: string): string {
    return `Cannot use "${wanted}" from ${this.#what}: it leads out of the base path`
  }
}

function leaves(base: string, path: string): boolean {
  const way = relative(base, path)
  return way === '..' || way.startsWith(`..${sep}`) || isAbsolute(way)
}

function expandHome(path: string, home: string): string {
  return path === '~' || path.startsWith('~/') ? join(home, path.slice(1)) : path
}
