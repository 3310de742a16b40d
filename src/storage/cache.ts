// One cache for every kind of source: asked cheaply whether it has changed, fetched once for all who want it, verified when
// it is read.
//
//   source --listing or revision--> unchanged? --yes--> tree --unpack, verify--> workspace
//                                       `--no--> claim --> staging --rename--> tree, then the reference

import { utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { describeError, isDiskFull } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { type BuiltTree, buildTree } from './build-tree.ts'
import { CacheFolder, type Reference } from './cache-folder.ts'
import { pruneCache } from './cache-prune.ts'
import { askSource, CacheError, isCacheTrouble } from './cache-trouble.ts'
import type { CacheLimits, FetchLimits, Meter } from './context.ts'
import { withRetries } from './retry.ts'
import { SharedWork } from './shared-work.ts'
import { completeSnapshot, isComplete, knownFiles, type Snapshot, takeSnapshot } from './snapshot.ts'
import { ChangedError, type Entry, type KnownFiles, type Source } from './source.ts'
import { StorageError } from './storage.ts'
import { runTreeJob, warmTreeThread } from './tree-thread.ts'
import { DamagedTreeError } from './unpack-tree.ts'
import { emptyFolder } from './workspace.ts'

/** A source that goes on changing while it is read is given up after so many tries. */
const maxChanges = 3

export interface FillOptions {
  readonly limits: FetchLimits
  readonly cacheLimits: CacheLimits
  readonly meter: Meter
  readonly logger: Logger | undefined
}

interface Refresh {
  /** The source's name in the cache. */
  readonly name: string
  readonly source: Source
  readonly options: FillOptions
  /** Whether files are taken for unchanged of which the listing says what it said before. */
  readonly trustsSigns: boolean
}

interface Refreshed {
  /** Name of the tree. */
  readonly id: string
  readonly fromCache: boolean
}

export class Cache {
  readonly folder: CacheFolder
  readonly #refreshes = new SharedWork<Refreshed>()

  private constructor(folder: CacheFolder) {
    this.folder = folder
  }

  /** Throws a StorageError or a system error when the folder cannot be used. */
  static async open(path: string): Promise<Cache> {
    return new Cache(await CacheFolder.open(path))
  }

  /**
   * Fills `to`, an existing, empty, private folder, with what the source holds at a moment after this call.
   * `openSource` gives a new, unconnected source each time; it may be used for others who want the same.
   * Rejects with a CacheError when the source may be well but the cache is not.
   */
  async fill(openSource: () => Source, to: string, options: FillOptions, signal: AbortSignal): Promise<void> {
    warmTreeThread()
    for (let attempt = 0; ; attempt++) {
      const { id, fromCache } = await this.#bringUpToDate(openSource, options, signal)
      options.meter.fromCache = fromCache
      try {
        await runTreeJob({ kind: 'unpack', tree: this.folder.treePath(id), id, to }, signal)
        return
      } catch (error) {
        await this.#mend(error, { id, attempt, options })
        await emptyFolder(to)
      }
    }
  }

  async #bringUpToDate(openSource: () => Source, options: FillOptions, signal: AbortSignal): Promise<Refreshed> {
    const name = this.folder.nameOf(openSource().identity)
    try {
      return await this.#refreshes.join(name, signal => this.#refresh(name, openSource, options, signal), signal)
    } catch (error) {
      signal.throwIfAborted()
      throw isCacheTrouble(error) ? new CacheError(error) : error
    }
  }

  /** A tree that was pruned or damaged since, or no room beside the cache: worth one more try. Else it throws. */
  async #mend(
    error: unknown,
    { id, attempt, options }: { id: string; attempt: number; options: FillOptions },
  ): Promise<void> {
    if (error instanceof DamagedTreeError) {
      await this.folder.discard(id)
      if (attempt > 0) throw new CacheError(error)
      options.logger?.warn({ tree: id, reason: describeError(error) }, 'cached tree is damaged, fetching it again')
    } else if (attempt > 0 || !isDiskFull(error) || !(await this.#makeRoom(options))) throw error
  }

  /** Makes sure that the cache holds what the source holds now. */
  async #refresh(
    name: string,
    openSource: () => Source,
    options: FillOptions,
    signal: AbortSignal,
  ): Promise<Refreshed> {
    const source = openSource()
    try {
      for (let change = 1; ; change++) {
        try {
          // What has just been found wrong is asked for anew.
          return await this.#refreshOnce({ name, source, options, trustsSigns: change === 1 }, signal)
        } catch (error) {
          if (!(error instanceof ChangedError)) throw error
          if (change === maxChanges) throw new StorageError('It changes faster than it can be read', { cause: error })
        }
      }
    } finally {
      await source.close()
    }
  }

  async #refreshOnce(refresh: Refresh, signal: AbortSignal): Promise<Refreshed> {
    const { name, source, options, trustsSigns } = refresh
    const known = trustsSigns ? () => this.#knownFiles(name) : undefined
    const look = () => withRetries(() => askSource(() => takeSnapshot(source, options.limits, signal, known)), signal)
    const snapshot = await look()
    const unchanged = await this.#findUnchanged(name, snapshot)
    if (unchanged !== undefined) return { id: unchanged, fromCache: true }
    await using claim = await this.folder.claim(name, signal)
    // While we waited another process may have fetched it.
    const isEnough = isComplete(snapshot) || !(await this.folder.readReference(name))
    const latest = isEnough ? snapshot : await look()
    const fetched = await this.#findUnchanged(name, latest)
    if (fetched !== undefined) return { id: fetched, fromCache: true }
    const left = await this.folder.sweep()
    if (left.length > 0) options.logger?.warn({ left }, 'half a download of another process cannot be removed yet')
    return { id: await this.#fetch({ ...refresh, snapshot: latest, staging: claim.staging }, signal), fromCache: false }
  }

  async #knownFiles(name: string): Promise<KnownFiles | undefined> {
    const reference = await this.folder.readReference(name)
    if (!reference) return undefined
    const { validators, signs } = reference
    return new Map(
      Object.entries(signs).flatMap(([path, sign]) => {
        const validator = validators[path]
        return validator === undefined ? [] : [[path, { sign, validator }] as const]
      }),
    )
  }

  /** The tree of an unchanged source. Whether it is sound is found out when it is unpacked. */
  async #findUnchanged(name: string, { validator, entries }: Snapshot): Promise<string | undefined> {
    if (validator === undefined) return undefined
    const reference = await this.folder.readReference(name)
    if (reference?.validator !== validator) return undefined
    try {
      // "Used": the least recently used trees are the first to go.
      await utimes(join(this.folder.treePath(reference.tree), 'manifest.json'), new Date(), new Date())
    } catch {
      // Pruned since.
      return undefined
    }
    const signs = signsOf(entries)
    if (Object.keys(signs).some(path => signs[path] !== reference.signs[path])) {
      // It only saves questions: a full disk is no reason to do without the cache.
      await this.folder.writeReference(name, { ...reference, signs }).catch(() => undefined)
    }
    return reference.tree
  }

  async #fetch(fetch: Refresh & { snapshot: Snapshot; staging: string }, signal: AbortSignal): Promise<string> {
    const { name, source, snapshot, options } = fetch
    const before = await this.folder.readReference(name)
    const previous = before && {
      path: this.folder.treePath(before.tree),
      id: before.tree,
      validators: before.validators,
    }
    const build = { source, snapshot, staging: fetch.staging, previous, limits: options.limits, meter: options.meter }
    const tree = await buildTree(build, signal).catch(async error => {
      if (!isDiskFull(error) || !(await this.#makeRoom(options))) throw error
      await emptyFolder(fetch.staging)
      return buildTree(build, signal)
    })
    await this.folder.publish(tree.path, tree.id)
    await this.folder.writeReference(name, makeReference(source, completeSnapshot(snapshot, tree.arrived), tree))
    await pruneCache(this.folder, options.cacheLimits, new Set([tree.id])).catch(error =>
      options.logger?.warn({ cache: this.folder.path, reason: describeError(error) }, 'cache cannot be pruned'),
    )
    return tree.id
  }

  /** The disk is full: runs need it more than the cache does. False when there was nothing to give. */
  async #makeRoom({ logger }: FillOptions): Promise<boolean> {
    const removed = await pruneCache(this.folder, { maxBytes: 0, maxAgeDays: 0 })
    if (removed.length > 0)
      logger?.warn({ cache: this.folder.path, trees: removed.length }, 'disk is full, cache was emptied')
    return removed.length > 0
  }
}

function makeReference(source: Source, { validator, entries }: Snapshot, tree: BuiltTree): Reference {
  const validators = entries.flatMap(entry =>
    entry.kind === 'file' && entry.validator !== undefined ? [[entry.path, entry.validator] as const] : [],
  )
  return {
    version: 1,
    place: source.place,
    tree: tree.id,
    validator: validator ?? null,
    fetched: new Date().toISOString(),
    validators: Object.fromEntries(validators),
    signs: signsOf(entries),
  }
}

function signsOf(entries: readonly Entry[]): Reference['signs'] {
  return Object.fromEntries([...knownFiles(entries)].map(([path, { sign }]) => [path, sign]))
}
