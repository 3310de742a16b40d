// The cache on disk. All that is in it may be lost at any time; nothing of it is believed without being verified.
//
//   <cache>/key                      32 random bytes: names of sources are keyed hashes, so no secret can be guessed from them
//   <cache>/refs/<source>.json       what a source held when it was last looked at -> name of the tree
//   <cache>/trees/<name>/            manifest.ts; made elsewhere, moved here when complete, never changed
//   <cache>/staging/, locks/         cache-claim.ts
//   <cache>/trash/                   on its way out

import { createHmac, randomBytes } from 'node:crypto'
import { link, lstat, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import * as v from 'valibot'
import { errorCode } from '../errors.ts'
import { type CacheClaim, claimSource, isAbandoned } from './cache-claim.ts'
import { ownName } from './owner.ts'
import { StorageError } from './storage.ts'
import { removeTree } from './workspace.ts'

const Reference = v.object({
  version: v.literal(1),
  /** For people. */
  place: v.string(),
  tree: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  /** What the source said when it was fetched; null: it cannot say, so it is fetched each time. */
  validator: v.nullable(v.string()),
  fetched: v.string(),
  /** Validator of each file, for taking unchanged files from the tree before. */
  validators: v.record(v.string(), v.string()),
  /** Of files that the listing alone tells of: what it said of them. */
  signs: v.optional(v.record(v.string(), v.string()), {}),
})
export type Reference = v.InferOutput<typeof Reference>

const keyBytes = 32

export class CacheFolder {
  readonly path: string
  readonly #key: Buffer
  readonly #owner = `${ownName()}-${randomBytes(3).toString('hex')}`
  #serial = 0

  private constructor(path: string, key: Buffer) {
    this.path = path
    this.#key = key
  }

  /** Makes what is missing. Throws a StorageError when others could write there, or it cannot be used. */
  static async open(path: string): Promise<CacheFolder> {
    await mkdir(path, { recursive: true, mode: 0o700 })
    const stat = await lstat(path)
    if (!stat.isDirectory() || stat.uid !== process.getuid?.() || (stat.mode & 0o022) !== 0) {
      throw new StorageError(`Cache folder "${path}" must be a folder of our own that nobody else can write to`)
    }
    for (const name of ['refs', 'trees', 'staging', 'locks', 'trash'])
      await mkdir(join(path, name), { recursive: true, mode: 0o700 })
    return new CacheFolder(path, await readKey(path))
  }

  /** The name of a source in refs and locks. */
  nameOf(identity: readonly unknown[]): string {
    return createHmac('sha256', this.#key).update(JSON.stringify(identity)).digest('hex').slice(0, 40)
  }

  #nextMark(): string {
    return `${this.#owner}.${this.#serial++}`
  }

  treePath(id: string): string {
    return join(this.path, 'trees', id)
  }

  async readReference(source: string): Promise<Reference | undefined> {
    try {
      const result = v.safeParse(
        Reference,
        JSON.parse(await readFile(join(this.path, 'refs', `${source}.json`), 'utf8')),
      )
      return result.success ? result.output : undefined
    } catch {
      // Missing, half written by a machine that lost power, of another version: the same as never fetched.
      return undefined
    }
  }

  async listReferences(): Promise<readonly (Reference & { readonly source: string })[]> {
    const found: (Reference & { readonly source: string })[] = []
    for (const name of await readdir(join(this.path, 'refs'))) {
      const source = name.replace(/\.json$/, '')
      const reference = await this.readReference(source)
      if (reference) found.push({ ...reference, source })
    }
    return found
  }

  async writeReference(source: string, reference: Reference): Promise<void> {
    const partial = join(this.path, 'trash', this.#nextMark())
    await writeFile(partial, JSON.stringify(reference), { mode: 0o600 })
    await rename(partial, join(this.path, 'refs', `${source}.json`))
  }

  /** Moves a complete tree to its name. Another process may have been first: its tree is as good as ours. */
  async publish(staging: string, id: string): Promise<void> {
    try {
      await rename(staging, this.treePath(id))
    } catch (error) {
      if (errorCode(error) !== 'ENOTEMPTY' && errorCode(error) !== 'EEXIST') throw error
      await removeTree(staging)
    }
  }

  /** Takes a tree out at once; readers that have it open finish. Nothing there is fine. */
  async discard(id: string): Promise<void> {
    const trash = join(this.path, 'trash', this.#nextMark())
    await rename(this.treePath(id), trash).catch(error => {
      if (errorCode(error) !== 'ENOENT') throw error
    })
    await removeTree(trash)
  }

  /** Waits until no other living process fetches this source; then it is ours until the claim is disposed. */
  claim(source: string, signal: AbortSignal): Promise<CacheClaim> {
    return claimSource({ cache: this.path, source, mark: this.#nextMark() }, signal)
  }

  /** Removes what dead processes have left half done; returns what could not be removed yet. */
  async sweep(): Promise<readonly string[]> {
    const left: string[] = []
    for (const folder of ['staging', 'trash']) {
      for (const name of await readdir(join(this.path, folder))) {
        const path = join(this.path, folder, name)
        if (name.startsWith(this.#owner) || !(await isAbandoned(path, name))) continue
        await removeTree(path).catch(() => left.push(path))
      }
    }
    return left
  }
}

/** Never seen half written, so that two processes do not name things differently. */
async function readKey(path: string): Promise<Buffer> {
  const file = join(path, 'key')
  const known = await readFile(file).catch(() => undefined)
  if (known?.length === keyBytes) return known
  const fresh = join(path, 'trash', `${ownName()}-${randomBytes(3).toString('hex')}.key`)
  try {
    await writeFile(fresh, randomBytes(keyBytes), { flag: 'wx', mode: 0o600 })
    // What has the wrong length is what a full disk or a power failure has left.
    if (known) await rename(fresh, file)
    else await link(fresh, file)
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw error
  } finally {
    await rm(fresh, { force: true })
  }
  return readFile(file)
}
