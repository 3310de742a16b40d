// What breaks off in the middle, changes in the middle or never ends: fetched whole or not at all. Real servers behind a
// proxy that cuts.

import assert from 'node:assert/strict'
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { makeMeter, type StorageContext } from '../../src/storage/context.ts'
import { openStorage } from '../../src/storage/registry.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs, type Requirement } from '../support/requires.ts'
import { startTcpProxy, type TcpProxyOptions } from '../support/tcp-proxy.ts'
import { connectionString, openAzurePlace } from './azure-server.ts'
import type { ContractPlace } from './contract.ts'
import { openGcsPlace } from './gcs-server.ts'
import { openS3Place, s3BucketBlock } from './s3-server.ts'
import { makeContext, readTree } from './support.ts'

const never = new AbortController().signal
const megabyte = 2 ** 20

const storages: readonly { readonly server: Requirement; readonly open: () => Promise<ContractPlace> }[] = [
  {
    server: 's3',
    open: () => openS3Place('s3', s3BucketBlock),
  },
  {
    server: 'azure',
    open: () =>
      openAzurePlace(place => ({
        slug: 'azure',
        data: { bucket_path: `${place.container}/flows`, azure_storage_connection_string: connectionString(place) },
      })),
  },
  {
    server: 'gcs',
    open: () =>
      openGcsPlace('open', ({ bucket, endpoint }) => ({
        slug: 'remote-file-system',
        data: { basepath: `gs://${bucket}/flows`, settings: { token: 'anon', endpoint_url: endpoint } },
      })),
  },
]

/** Fetches through a proxy into a new folder of a cache of its own. */
async function openChaos(place: ContractPlace, proxying: Omit<TcpProxyOptions, 'host' | 'port'>) {
  const directory = await makeDirectory()
  const proxy = await startTcpProxy({ ...place.address, ...proxying })
  const cacheDir = join(directory.path, 'cache')
  let serial = 0
  return {
    proxy,
    async fetch(changes: Partial<StorageContext> = {}) {
      const to = join(directory.path, 'runs', String(serial++), 'workspace')
      await mkdir(to, { recursive: true })
      const block = place.block({ host: '127.0.0.1', port: proxy.port })
      const context = makeContext({ cacheDir, environment: place.environment ?? {}, ...changes })
      await (await openStorage(block, context)).getDirectory(undefined, to, never)
      return readTree(to)
    },
    async assertNothingKept(): Promise<void> {
      for (const name of ['trees', 'refs', 'staging', 'locks', 'trash'])
        assert.deepEqual(await readdir(join(cacheDir, name)), [], name)
    },
    async [Symbol.asyncDispose]() {
      await proxy[Symbol.asyncDispose]()
      await directory[Symbol.asyncDispose]()
    },
  }
}

/** Numbers that look random and are the same in each run of the test. */
function makeRandom(seed: number): (below: number) => number {
  let state = seed
  return below => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    return state % below
  }
}

for (const { server, open } of storages) {
  test(`${server}: a tree arrives whole over connections that are cut at random places`, needs(server), async () => {
    await using place = await open()
    const tree: Record<string, string> = { 'large.bin': 'abcdefgh'.repeat(megabyte / 4) }
    for (let at = 0; at < 60; at++) tree[`pkg/file${at}.py`] = `# ${at}\n`.repeat(at * 20)
    for (const [path, text] of Object.entries(tree)) await place.put(path, text)
    const random = makeRandom(4711)
    // Every other connection lives for up to 400 kB; that can end in a head, in a body, between two answers.
    const budgets = new Map<number, number>()
    await using chaos = await openChaos(place, {
      cut({ connection, bytesBefore, length }) {
        const budget = budgets.get(connection) ?? (connection % 2 === 0 ? random(400_000) : Number.POSITIVE_INFINITY)
        budgets.set(connection, budget)
        return bytesBefore + length > budget ? Math.max(0, budget - bytesBefore) : undefined
      },
    })
    assert.deepEqual(await chaos.fetch(), tree)
    const cuts = [...budgets.values()].filter(budget => budget !== Number.POSITIVE_INFINITY).length
    assert.ok(cuts >= 2, `${cuts} cuts`)
  })

  test(`${server}: a large file that breaks off is read on, not again`, needs(server), async () => {
    await using place = await open()
    const size = 8 * megabyte
    await place.put('large.bin', 'x'.repeat(size))
    await using chaos = await openChaos(place, {
      cut: ({ bytesBefore, length }) =>
        bytesBefore + length > megabyte ? Math.max(0, megabyte - bytesBefore) : undefined,
    })
    const meter = makeMeter()
    const tree = await chaos.fetch({ meter })
    assert.ok(tree['large.bin'] === 'x'.repeat(size))
    assert.ok(chaos.proxy.connections >= 8)
    assert.equal(meter.bytes, size)
  })

  test(
    `${server}: a file that is replaced in the middle of the download is never put together from both`,
    needs(server),
    async () => {
      await using place = await open()
      const [before, after] = ['b'.repeat(4 * megabyte), 'a'.repeat(4 * megabyte)]
      await place.put('large.bin', before)
      let replacing: Promise<void> | undefined
      await using chaos = await openChaos(place, {
        cut({ bytesBefore, length }) {
          if (replacing || bytesBefore + length < 2 * megabyte) return undefined
          replacing = place.put('large.bin', after)
          return 0
        },
      })
      const tree = await chaos.fetch()
      await replacing
      assert.ok(replacing, 'it was never cut')
      const text = tree['large.bin']
      assert.ok(text === after || text === before, 'a mixture arrived')
      assert.deepEqual(await chaos.fetch(), { 'large.bin': after })
    },
  )

  test(
    `${server}: a server that falls silent ends with the limit on time, and nothing is kept`,
    needs(server),
    async () => {
      await using place = await open()
      await place.put('a.py', 'a')
      await using chaos = await openChaos(place, { delayMs: 3000 })
      const limits = { maxBytes: 2 ** 30, maxFiles: 1000, maxSeconds: 1 }
      await assert.rejects(chaos.fetch({ limits }), {
        name: 'StorageError',
        message: /Could not fetch .*longer than the limit of 1 seconds/,
      })
      await chaos.assertNothingKept()
    },
  )
}
