// A process that fetches one block into a folder through a cache, for tests of several processes and of sudden ends.
//
//   node fetch-main.ts '{"block": …, "to": …, "cacheDir": …}'      prints how many files came from the source

import { mkdir } from 'node:fs/promises'
import process from 'node:process'
import { makeMeter } from '../../src/storage/context.ts'
import { openStorage, type StorageBlock } from '../../src/storage/registry.ts'
import { makeContext } from './support.ts'

export interface FetchOrder {
  readonly block: StorageBlock
  /** Made when missing. */
  readonly to: string
  readonly cacheDir: string
}

// Written by the test that starts this.
const order: FetchOrder = JSON.parse(process.argv[2] ?? '')
const meter = makeMeter()
await mkdir(order.to, { recursive: true })
const storage = await openStorage(order.block, makeContext({ cacheDir: order.cacheDir, meter }))
await storage.getDirectory(undefined, order.to, new AbortController().signal)
console.log(JSON.stringify({ files: meter.files }))
