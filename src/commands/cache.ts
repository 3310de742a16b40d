// `rigel cache`: what is kept of fetched code, whether it is sound, and making it smaller.

import * as v from 'valibot'
import { describeError, UserError } from '../errors.ts'
import { CacheFolder } from '../storage/cache-folder.ts'
import { listTrees, pruneCache } from '../storage/cache-prune.ts'
import { runTreeJob } from '../storage/tree-thread.ts'
import { DamagedTreeError } from '../storage/unpack-tree.ts'
import type { Context } from './context.ts'
import { formatBytes } from './fetch-progress.ts'
import { type Call, isGiven, readOptions } from './options.ts'
import { printJson, printTable } from './output.ts'

async function openFolder({ config }: Context): Promise<CacheFolder> {
  const { cacheDir } = config.paths
  try {
    return await CacheFolder.open(cacheDir)
  } catch (cause) {
    throw new UserError(`Could not use the cache folder "${cacheDir}": ${describeError(cause)}`, { cause })
  }
}

export async function listCache(context: Context): Promise<void> {
  const folder = await openFolder(context)
  const sources = await folder.listReferences()
  const trees = (await listTrees(folder)).toSorted((a, b) => b.usedMs - a.usedMs)
  const rows = trees.map(({ id, bytes, usedMs }) => ({
    id,
    bytes,
    used: new Date(usedMs).toISOString(),
    sources: sources.filter(({ tree }) => tree === id).map(({ place }) => place),
  }))
  if (context.format === 'json') return printJson(context, rows)
  await printTable(
    context,
    ['tree', 'size', 'last used', 'from'],
    rows.map(({ id, bytes, used, sources }) => [
      id.slice(0, 12),
      formatBytes(bytes),
      used.slice(0, 19),
      sources.join(', '),
    ]),
  )
}

/** Reads every byte; damaged trees are taken out, for the next run fetches them anew. Exit code 1 when there was one. */
export async function verifyCache(context: Context): Promise<number> {
  const folder = await openFolder(context)
  const { stopping } = context.signals
  const damaged: { id: string; reason: string }[] = []
  const trees = await listTrees(folder)
  for (const { id } of trees) {
    try {
      await runTreeJob({ kind: 'unpack', tree: folder.treePath(id), id, to: undefined }, stopping)
    } catch (error) {
      if (!(error instanceof DamagedTreeError)) throw error
      damaged.push({ id, reason: error.message })
      await folder.discard(id)
    }
  }
  if (context.format === 'json') printJson(context, { trees: trees.length, damaged })
  else {
    for (const { id, reason } of damaged) context.stdout.write(`removed ${id.slice(0, 12)}: ${reason}\n`)
    context.stdout.write(`${trees.length - damaged.length} of ${trees.length} trees are sound\n`)
  }
  return damaged.length > 0 ? 1 : 0
}

export async function shrinkCache(context: Context, call: Call): Promise<void> {
  const { all } = readOptions(v.object({ all: isGiven }), call.options)
  const folder = await openFolder(context)
  const { cacheMaxBytes, cacheMaxAgeDays } = context.config.storage
  const limits = all ? { maxBytes: 0, maxAgeDays: 0 } : { maxBytes: cacheMaxBytes, maxAgeDays: cacheMaxAgeDays }
  const removed = await pruneCache(folder, limits)
  for (const path of await folder.sweep()) context.stderr.write(`${path} cannot be removed yet\n`)
  const bytes = removed.reduce((sum, tree) => sum + tree.bytes, 0)
  if (context.format === 'json') return printJson(context, { trees: removed.length, bytes })
  context.stdout.write(`removed ${removed.length} trees (${formatBytes(bytes)})\n`)
}
