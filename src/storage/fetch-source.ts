// From a source to a folder: through the machine's cache, or through one of its own where there is none; and the one place
// where a failed fetch is put into a sentence.

import { mkdtemp, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describeError, isDiskFull } from '../errors.ts'
import { openFenced, storageError } from './blame.ts'
import { Cache, type FillOptions } from './cache.ts'
import { CacheError } from './cache-trouble.ts'
import { defaultCacheLimits, makeMeter, type StorageContext } from './context.ts'
import type { Remote, Source } from './source.ts'
import type { Storage } from './storage.ts'
import { withTimeLimit } from './time-limit.ts'
import { emptyFolder, removeTree } from './workspace.ts'

/** One per folder and process, so that what is fetched at the same time is fetched once. */
const caches = new Map<string, Promise<Cache>>()

/** A block's place as the agent sees it. */
export function storageOf(remote: Remote, context: StorageContext): Storage {
  return {
    getDirectory: (from, to, signal) => fetchSource(() => remote.folder(from), to, context, signal),
  }
}

/** Fills `to`, an existing, empty folder. Rejects with a StorageError, or with the signal's reason. */
export async function fetchSource(
  openSource: () => Source,
  to: string,
  context: StorageContext,
  signal: AbortSignal,
): Promise<void> {
  const { place, credentials } = openFenced(openSource)
  const options = {
    limits: context.limits,
    cacheLimits: context.cacheLimits ?? defaultCacheLimits,
    meter: context.meter ?? makeMeter(),
    logger: context.logger,
  }
  try {
    await withTimeLimit(context.limits, signal, async signal => {
      if (await fillFromSharedCache(context, { openSource, to, options }, signal)) return
      await withOwnCache(dirname(to), cache => cache.fill(openSource, to, options, signal))
    })
  } catch (error) {
    signal.throwIfAborted()
    throw storageError(`Could not fetch ${place} (${credentials})`, error)
  }
}

interface Filling {
  readonly openSource: () => Source
  readonly to: string
  readonly options: FillOptions
}

/** False when there is no cache, or none that can be used; then `to` is as empty as before. */
async function fillFromSharedCache(
  context: StorageContext,
  { openSource, to, options }: Filling,
  signal: AbortSignal,
): Promise<boolean> {
  const { cacheDir, logger } = context
  const shared = await openSharedCache(context)
  if (!shared || cacheDir === undefined) return false
  try {
    await shared.fill(openSource, to, options, signal)
    return true
  } catch (error) {
    if (!(error instanceof CacheError)) throw error
    // The next one opens it anew: somebody may have removed it.
    if ((await caches.get(cacheDir)) === shared) caches.delete(cacheDir)
    // Where there is no room for the cache there is none beside it either.
    if (isDiskFull(error) && (await isSameDisk(cacheDir, to))) throw error
    logger?.warn({ cache: cacheDir, reason: describeError(error) }, 'cache cannot be used, fetching without it')
    await emptyFolder(to)
    return false
  }
}

async function isSameDisk(one: string, other: string): Promise<boolean> {
  const [first, second] = await Promise.all([stat(one), stat(other)])
  return first.dev === second.dev
}

async function openSharedCache({ cacheDir, logger }: StorageContext): Promise<Cache | undefined> {
  if (cacheDir === undefined) return undefined
  const cache = caches.get(cacheDir) ?? Cache.open(cacheDir)
  caches.set(cacheDir, cache)
  try {
    return await cache
  } catch (error) {
    caches.delete(cacheDir)
    // The run does not need it.
    logger?.warn({ cache: cacheDir, reason: describeError(error) }, 'cache cannot be used, fetching without it')
    return undefined
  }
}

/** Beside the folder that is filled, so on a disk with room for it. */
async function withOwnCache(parent: string, work: (cache: Cache) => Promise<void>): Promise<void> {
  const path = await mkdtemp(join(parent, '.fetch-'))
  try {
    await work(await Cache.open(path))
  } finally {
    await removeTree(path)
  }
}
