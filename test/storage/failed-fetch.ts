// A process that fetches one block and says how that failed, for tests that put it where fetching cannot work.
//
//   node failed-fetch.ts '{"block": …, "to": …}'

import process from 'node:process'
import { openStorage, type StorageBlock } from '../../src/storage/registry.ts'
import { StorageError } from '../../src/storage/storage.ts'
import { makeContext } from './support.ts'

// Written by the test that starts this.
const order: { readonly block: StorageBlock; readonly to: string } = JSON.parse(process.argv[2] ?? '')
const storage = await openStorage(order.block, makeContext({ environment: process.env }))
const started = performance.now()
try {
  await storage.getDirectory(undefined, order.to, new AbortController().signal)
} catch (error) {
  if (!(error instanceof StorageError)) throw error
  const { name, blame, message } = error
  console.log(JSON.stringify({ name, blame, message, seconds: (performance.now() - started) / 1000 }))
}
