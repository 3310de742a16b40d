// Keeps the cache within its bounds: what was not used for long goes, then what was used least recently.

import { existsSync } from 'node:fs'
import { readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { CacheFolder } from './cache-folder.ts'
import type { CacheLimits } from './context.ts'

export interface CachedTree {
  readonly id: string
  readonly bytes: number
  readonly usedMs: number
}

/** Removes trees beyond the limits, but none of `keep`, and references to trees that are gone. Returns what was removed. */
export async function pruneCache(
  folder: CacheFolder,
  limits: CacheLimits,
  keep: ReadonlySet<string> = new Set(),
): Promise<readonly CachedTree[]> {
  const trees = (await listTrees(folder)).toSorted((a, b) => b.usedMs - a.usedMs)
  const oldest = Date.now() - limits.maxAgeDays * 24 * 3600 * 1000
  const removed: CachedTree[] = []
  let bytes = 0
  for (const tree of trees) {
    bytes += tree.bytes
    if (keep.has(tree.id) || (bytes <= limits.maxBytes && tree.usedMs >= oldest)) continue
    bytes -= tree.bytes
    await folder.discard(tree.id)
    removed.push(tree)
  }
  if (removed.length > 0) await removeReferences(folder)
  return removed
}

export async function listTrees(folder: CacheFolder): Promise<readonly CachedTree[]> {
  const trees: CachedTree[] = []
  for (const id of await readdir(join(folder.path, 'trees'))) {
    const tree = await measureTree(folder, id)
    if (tree) trees.push(tree)
  }
  return trees
}

async function measureTree(folder: CacheFolder, id: string): Promise<CachedTree | undefined> {
  try {
    const path = folder.treePath(id)
    const manifest = await stat(join(path, 'manifest.json'))
    let bytes = manifest.size + (await stat(join(path, 'pack'))).size
    for (const name of await readdir(join(path, 'large'))) bytes += (await stat(join(path, 'large', name))).size
    return { id, bytes, usedMs: manifest.mtimeMs }
  } catch {
    // Another process has just taken it away.
    return undefined
  }
}

/** Those to trees that are gone. Looked at one by one, for other processes fetch meanwhile. */
async function removeReferences(folder: CacheFolder): Promise<void> {
  for (const { source, tree } of await folder.listReferences()) {
    if (!existsSync(folder.treePath(tree))) await rm(join(folder.path, 'refs', `${source}.json`), { force: true })
  }
}
