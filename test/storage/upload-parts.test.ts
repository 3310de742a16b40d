import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { openContainer } from '../../src/storage/azure.ts'
import { readAccount } from '../../src/storage/azure-settings.ts'
import { openGcsBucket } from '../../src/storage/gcs.ts'
import { openBucket } from '../../src/storage/s3.ts'
import { S3Client } from '../../src/storage/s3-client.ts'
import type { Remote } from '../../src/storage/source.ts'
import { defaultPartRule, splitIntoParts } from '../../src/storage/upload-parts.ts'
import { writableStorageOf } from '../../src/storage/write-storage.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { startTcpProxy, type TcpProxyOptions } from '../support/tcp-proxy.ts'
import { connectionString, openAzurePlace } from './azure-server.ts'
import { type GcsPlace, openGcsPlace } from './gcs-server.ts'
import { makeBucket } from './s3-server.ts'
import { makeContext } from './support.ts'

const signal = new AbortController().signal
const MiB = 1024 * 1024
/** The smallest parts that S3 takes. */
const rule = { wholeBytes: 5 * MiB, partBytes: 5 * MiB }
const content = randomBytes(12 * MiB + 7)

function storageAt(remote: Remote) {
  if (!remote.target) throw new Error('it can be written to')
  return writableStorageOf(remote, remote.target.bind(remote), makeContext())
}

/** A bucket behind a proxy that may cut, with a local folder that holds the large file. */
async function openBench(options: Pick<TcpProxyOptions, 'cutRequest' | 'holdRequest'> = {}) {
  const bucket = await makeBucket('s3')
  const { hostname: host, port } = new URL(bucket.endpoint)
  const proxy = await startTcpProxy({ host, port: Number(port), ...options })
  const directory = await makeDirectory()
  await mkdir(join(directory.path, 'from'))
  await writeFile(join(directory.path, 'from/large.bin'), content)
  const settings = { ...bucket, base: 'flows', folderMarkers: true }
  const client = new S3Client(settings, makeContext())
  const ask = async (key: string, query: Record<string, string>) =>
    (await client.send({ method: 'GET', key, query }, signal)).body.text()
  return {
    from: join(directory.path, 'from'),
    storage: storageAt(openBucket({ ...settings, endpoint: `http://127.0.0.1:${proxy.port}` }, makeContext(), rule)),
    put: (text: string) => bucket.put('flows/large.bin', text),
    read: () => storageAt(openBucket(settings, makeContext())).readPath('large.bin', signal),
    /** `-3` at the end of an ETag: three parts. */
    listing: () => ask('', { 'list-type': '2', prefix: 'flows/' }),
    unfinished: async () => (await ask('', { uploads: '', prefix: 'flows/large.bin' })).split('<Upload>').length - 1,
    async [Symbol.asyncDispose]() {
      await client.close()
      await proxy[Symbol.asyncDispose]()
      await bucket[Symbol.asyncDispose]()
      await directory[Symbol.asyncDispose]()
    },
  }
}

test('a file is split into parts only above the size for one request, and into no more than 10,000', () => {
  assert.equal(splitIntoParts(defaultPartRule.wholeBytes, defaultPartRule), undefined)
  assert.deepEqual(splitIntoParts(12 * MiB, rule), [
    { number: 1, start: 0, size: 5 * MiB },
    { number: 2, start: 5 * MiB, size: 5 * MiB },
    { number: 3, start: 10 * MiB, size: 2 * MiB },
  ])
  assert.equal(splitIntoParts(10 * MiB, rule)?.length, 2)
  const fiveTiB = 5 * 1024 ** 4
  const parts = splitIntoParts(fiveTiB, defaultPartRule) ?? []
  assert.ok(parts.length <= 10_000 && (parts[0]?.size ?? 0) < 5 * 1024 ** 3, String(parts.length))
  assert.equal(
    parts.reduce((sum, { size }) => sum + size, 0),
    fiveTiB,
  )
})

test('S3: a large file goes up in parts and is one object, byte for byte', needs('s3'), async () => {
  await using bench = await openBench()
  assert.equal(await bench.storage.putDirectory(bench.from, undefined, undefined, signal), 1)
  assert.match(await bench.listing(), /<ETag>[^<]*-3(&#34;|&quot;|")<\/ETag>/)
  assert.ok(content.equals(await bench.read()))
  await bench.storage.writePath('large.bin', content.subarray(1), signal)
  assert.ok(content.subarray(1).equals(await bench.read()))
  assert.equal(await bench.unfinished(), 0)
})

test('S3: after a cut in the middle of a part only that part is sent again', needs('s3'), async () => {
  let sent = 0
  let cuts = 0
  await using bench = await openBench({
    cutRequest({ bytesBefore, length }) {
      sent += length
      return bytesBefore > 3 * MiB && cuts++ < 2
    },
  })
  await bench.storage.putDirectory(bench.from, undefined, undefined, signal)
  assert.ok(content.equals(await bench.read()))
  assert.ok(cuts >= 2)
  assert.ok(sent < content.length + 2 * rule.partBytes + MiB, `${sent} bytes were sent`)
  assert.equal(await bench.unfinished(), 0)
})

test('S3: an upload that fails for good leaves the old object and no parts', needs('s3'), async () => {
  await using bench = await openBench({ cutRequest: ({ bytesBefore }) => bytesBefore > 3 * MiB })
  await bench.put('old')
  await assert.rejects(bench.storage.putDirectory(bench.from, undefined, undefined, signal), {
    name: 'StorageError',
    message: /Could not upload .*Part \d did not arrive/,
  })
  assert.equal(Buffer.from(await bench.read()).toString(), 'old')
  assert.equal(await bench.unfinished(), 0)
})

test('S3: an upload that is stopped leaves the old object and no parts', needs('s3'), async () => {
  const controller = new AbortController()
  let unfinished: Promise<number> | undefined
  await using bench = await openBench({
    cutRequest({ bytesBefore }) {
      if (bytesBefore > 2 * MiB && !unfinished) {
        unfinished = bench.unfinished()
        void unfinished.then(() => controller.abort(new Error('stopped')))
      }
      return false
    },
    // Nothing of it goes on meanwhile.
    holdRequest: () => unfinished,
  })
  await bench.put('old')
  await assert.rejects(bench.storage.putDirectory(bench.from, undefined, undefined, controller.signal), /stopped/)
  assert.equal(await unfinished, 1)
  assert.equal(Buffer.from(await bench.read()).toString(), 'old')
  assert.equal(await bench.unfinished(), 0)
})

test('Azure: a large file goes up in blocks, and one that breaks off leaves the old blob', needs('azure'), async () => {
  let cut = false
  let connectionOf = ''
  await using place = await openAzurePlace(place => {
    connectionOf = connectionString(place)
    return { slug: 'azure', data: { container: place.container } }
  })
  const container = String(place.block().data.container)
  const direct = connectionOf
  await using proxy = await startTcpProxy({
    ...place.address,
    cutRequest: ({ bytesBefore }) => cut && bytesBefore > 3 * MiB,
  })
  place.block({ host: '127.0.0.1', port: proxy.port })
  const open = (text: string) =>
    storageAt(
      openContainer({ ...readAccount({ connectionString: text }), container, base: 'flows' }, makeContext(), rule),
    )
  const read = async () => Buffer.from(await open(direct).readPath('large.bin', signal))
  await using directory = await makeDirectory()
  await writeFile(join(directory.path, 'large.bin'), content)
  await open(connectionOf).putDirectory(directory.path, undefined, undefined, signal)
  assert.ok(content.equals(await read()))
  cut = true
  await writeFile(join(directory.path, 'large.bin'), randomBytes(11 * MiB))
  await assert.rejects(open(connectionOf).putDirectory(directory.path, undefined, undefined, signal), {
    message: /Part \d did not arrive/,
  })
  assert.ok(content.equals(await read()))
  cut = false
  await open(connectionOf).putDirectory(directory.path, undefined, undefined, signal)
  assert.ok((await readFile(join(directory.path, 'large.bin'))).equals(await read()))
})

test('GCS: a large file goes up in pieces, and one that breaks off leaves the old object', needs('gcs'), async () => {
  let cutsAfter = Number.POSITIVE_INFINITY
  let cuts = 0
  let maxCuts = 2
  let sent = 0
  const unused = { slug: 'gcs', data: {} }
  let at: GcsPlace | undefined
  await using place = await openGcsPlace('open', found => {
    at = found
    return unused
  })
  place.block()
  assert(at)
  const { bucket, endpoint } = at
  await using proxy = await startTcpProxy({
    ...place.address,
    cutRequest({ bytesBefore, length }) {
      sent += length
      return bytesBefore > cutsAfter && cuts++ < maxCuts
    },
  })
  const open = (address: string) => {
    const settings = {
      bucket,
      base: 'flows',
      endpoint: address,
      folderMarkers: true,
      login: { kind: 'anonymous' as const },
    }
    return storageAt(openGcsBucket(settings, makeContext(), rule))
  }
  const read = async () => Buffer.from(await open(endpoint).readPath('large.bin', signal))
  const proxied = `http://127.0.0.1:${proxy.port}`
  await using directory = await makeDirectory()
  const write = (bytes: Uint8Array) => writeFile(join(directory.path, 'large.bin'), bytes)
  const put = () => open(proxied).putDirectory(directory.path, undefined, undefined, signal)
  await write(content)
  await put()
  assert.ok(content.equals(await read()))

  // The second piece is cut twice, the first is not sent again.
  const other = randomBytes(12 * MiB)
  await write(other)
  sent = 0
  cutsAfter = 7 * MiB
  await put()
  assert.ok(other.equals(await read()))
  assert.ok(cuts >= 1)
  assert.ok(sent < other.length + 2 * rule.partBytes + MiB, `${sent} bytes were sent`)

  cutsAfter = 2 * MiB
  maxCuts = Number.POSITIVE_INFINITY
  await write(content)
  await assert.rejects(put(), { name: 'StorageError', message: /A part did not arrive/ })
  assert.ok(other.equals(await read()))
})
