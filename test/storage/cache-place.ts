// What the tests of the cache share: a server with objects, a cache, and folders to fetch into.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CacheFolder } from '../../src/storage/cache-folder.ts'
import { type Meter, makeMeter, type StorageContext } from '../../src/storage/context.ts'
import { openStorage } from '../../src/storage/registry.ts'
import { runTreeJob } from '../../src/storage/tree-thread.ts'
import { makeDirectory } from '../support/directory.ts'
import { startObjectServer } from './object-server.ts'
import { makeContext, readTree, type TreeEntry } from './support.ts'

const never = new AbortController().signal

export interface FetchChanges extends Partial<Omit<StorageContext, 'meter'>> {
  /** Folder of the bucket. */
  readonly folder?: string
  readonly to?: string
  readonly signal?: AbortSignal
}

export async function openCachePlace(files: Readonly<Record<string, string | Buffer>>) {
  const directory = await makeDirectory()
  const server = await startObjectServer(files)
  const cacheDir = join(directory.path, 'cache')
  let serial = 0
  return {
    path: directory.path,
    server,
    cacheDir,
    /** A new, empty folder. */
    async makeTarget(): Promise<string> {
      const to = join(directory.path, 'runs', String(serial++), 'workspace')
      await mkdir(to, { recursive: true })
      return to
    },
    /** Fetches into a new folder; what arrived there, and what it cost. */
    async fetch(changes: FetchChanges = {}): Promise<{ tree: Record<string, TreeEntry>; meter: Meter; to: string }> {
      const { folder, signal = never, ...context } = changes
      const to = changes.to ?? (await this.makeTarget())
      const meter = makeMeter()
      const storage = await openStorage(server.block(folder), makeContext({ cacheDir, ...context, meter }))
      await storage.getDirectory(undefined, to, signal)
      return { tree: await readTree(to), meter, to }
    },
    /** Names of what lies in a folder of the cache. */
    async list(name: 'refs' | 'trees' | 'staging' | 'locks' | 'trash'): Promise<readonly string[]> {
      return existsSync(join(cacheDir, name)) ? readdir(join(cacheDir, name)) : []
    },
    /** Every tree of the cache is whole. */
    async assertSound(): Promise<void> {
      const cache = await CacheFolder.open(cacheDir)
      for (const id of await readdir(join(cacheDir, 'trees')))
        await runTreeJob({ kind: 'unpack', tree: cache.treePath(id), id, to: undefined }, never)
    },
    async assertNothingHalfDone(): Promise<void> {
      const left = [...(await this.list('staging')), ...(await this.list('locks')), ...(await this.list('trash'))]
      assert.deepEqual(left, [])
    },
    /** All bytes of the cache, names included. */
    async readCache(): Promise<string> {
      const names = await readdir(cacheDir, { recursive: true, withFileTypes: true })
      const files = names.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name))
      return (await Promise.all(files.map(async file => `${file}\n${await readFile(file, 'latin1')}`))).join('\n')
    },
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]()
      await directory[Symbol.asyncDispose]()
    },
  }
}

/** Small files in folders, the same each time. */
export function makeFiles(count: number, bytes = 64): Record<string, string> {
  return Object.fromEntries(
    Array.from({ length: count }, (_, at) => [`pkg${at % 20}/file${at}.py`, `# ${at}\n`.padEnd(bytes, 'x')]),
  )
}

export type CachePlace = Awaited<ReturnType<typeof openCachePlace>>
