// From a source to a complete tree of the cache, in a folder that nobody sees yet.

import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { askSource } from './cache-trouble.ts'
import type { FetchLimits, Meter } from './context.ts'
import { download } from './download.ts'
import { withRetries } from './retry.ts'
import { type PreviousTree, Reuse } from './reuse.ts'
import type { ArrivedValidators, Snapshot } from './snapshot.ts'
import type { FileSource, Source, TreeSource } from './source.ts'
import { StorageError } from './storage.ts'
import { runTreeJob } from './tree-thread.ts'
import { TreeWriter } from './tree-writer.ts'
import { removeTree } from './workspace.ts'

export interface Build {
  readonly source: Source
  readonly snapshot: Snapshot
  /** Empty, private folder. */
  readonly staging: string
  readonly previous: PreviousTree | undefined
  readonly limits: FetchLimits
  readonly meter: Meter
}

export interface BuiltTree {
  readonly path: string
  readonly id: string
  /** Of the sources whose validators come with the content. */
  readonly arrived: ArrivedValidators
}

/** Rejects with a StorageError, a TransientError that stayed, a ChangedError, a system error, or the signal's reason. */
export async function buildTree(build: Build, signal: AbortSignal): Promise<BuiltTree> {
  const path = join(build.staging, 'tree')
  await mkdir(path, { mode: 0o700 })
  const { source } = build
  return source.kind === 'files'
    ? fromFiles(build, source, path, signal)
    : { path, id: await fromTree(build, source, path, signal), arrived: new Map() }
}

async function fromFiles(build: Build, source: FileSource, path: string, signal: AbortSignal): Promise<BuiltTree> {
  const { snapshot, limits, meter } = build
  await using reuse = await Reuse.open(build.previous)
  await using writer = await TreeWriter.open(path)
  meter.expected += snapshot.entries.filter(entry => entry.kind === 'file').length
  const arrived = await download({ source, entries: snapshot.entries, writer, reuse, limits, meter }, signal)
  return { path, id: await writer.finish(), arrived }
}

async function fromTree(build: Build, source: TreeSource, path: string, signal: AbortSignal): Promise<string> {
  const fetched = join(build.staging, 'fetched')
  await withRetries(async () => {
    // What a try before this one has left is of no use.
    await removeTree(fetched)
    await mkdir(fetched, { mode: 0o700 })
    const fetch = () => source.fetchTree(build.snapshot.validator, fetched, signal)
    await askSource(fetch, () => !existsSync(fetched))
  }, signal)
  const { id, files, bytes } = await runTreeJob({ kind: 'pack', from: fetched, to: path, limits: build.limits }, signal)
  if (files === 0) throw new StorageError('There is nothing below it')
  build.meter.files += files
  build.meter.bytes += bytes
  if (id === undefined) throw new Error('a packed tree has a name')
  return id
}
