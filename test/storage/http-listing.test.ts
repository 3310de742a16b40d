// Against the real nginx: which files are asked for again, and what is seen of a change.

import assert from 'node:assert/strict'
import { mkdir, rename, rm, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { Cache } from '../../src/storage/cache.ts'
import { defaultCacheLimits, defaultLimits, makeMeter } from '../../src/storage/context.ts'
import { isSettled, readSaid } from '../../src/storage/http-listing.ts'
import { openRemote, openStorage } from '../../src/storage/registry.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { makeDataFolder } from './data-folder.ts'
import { makeContext, readTree } from './support.ts'

const signal = new AbortController().signal
const minuteMs = 60_000
const dayMs = 24 * 60 * minuteMs
/** The beginning of a minute, three days ago. */
const longAgo = Math.floor(Date.now() / minuteMs) * minuteMs - 3 * dayMs

async function openPlace() {
  const { url = '', data = '' } = storageServer('http')
  const folder = await makeDataFolder(data)
  const directory = await makeDirectory()
  const cacheDir = join(directory.path, 'cache')
  let serial = 0
  const makeTarget = async (name: string) => {
    const to = join(directory.path, name)
    await mkdir(to)
    return to
  }
  const blockAt = (server: string) => ({
    slug: 'remote-file-system',
    data: { basepath: `${server}${folder.name}/flows`, settings: {} },
  })
  return {
    cacheDir,
    /** At once with its date and all its bytes, for the server may be asked meanwhile. */
    async put(path: string, text: string, time: number) {
      await folder.put('../new', text)
      await utimes(join(folder.path, 'new'), time / 1000, time / 1000)
      await rename(join(folder.path, 'new'), join(folder.path, 'flows', path))
    },
    block: blockAt(url),
    makeTarget,
    async fetch(at = url) {
      const to = await makeTarget(String(serial++))
      const meter = makeMeter()
      const storage = await openStorage(blockAt(at), makeContext({ cacheDir, meter }))
      await storage.getDirectory(undefined, to, signal)
      return { tree: await readTree(to), requests: meter.requests, files: meter.files }
    },
    async [Symbol.asyncDispose]() {
      await folder[Symbol.asyncDispose]()
      await directory[Symbol.asyncDispose]()
    },
  }
}

test('files that are older than a day cost one page of links when nothing has changed', needs('http'), async () => {
  await using place = await openPlace()
  for (const name of ['a.py', 'b c.py', 'ünï.py']) await place.put(name, name, longAgo)
  const first = await place.fetch()
  // The page, and each file once: who has nothing need not ask what has changed.
  assert.equal(first.requests, 4)
  assert.deepEqual(await place.fetch(), { tree: first.tree, requests: 1, files: 0 })
  assert.deepEqual(await place.fetch(), { tree: first.tree, requests: 1, files: 0 })
})

test('a change that keeps the size is seen, and only what is new is fetched', needs('http'), async () => {
  await using place = await openPlace()
  for (const name of ['a.py', 'b.py', 'c.py']) await place.put(name, 'old', longAgo)
  await place.fetch()
  await place.put('a.py', 'new', Date.now())
  assert.deepEqual(await place.fetch(), {
    tree: { 'a.py': 'new', 'b.py': 'old', 'c.py': 'old' },
    requests: 3,
    files: 3,
  })
  // By an older file.
  await place.put('b.py', 'two', longAgo - dayMs)
  assert.deepEqual((await place.fetch()).tree, { 'a.py': 'new', 'b.py': 'two', 'c.py': 'old' })
  // By one of the same minute, with another size.
  await place.put('c.py', 'three', longAgo + 30_000)
  assert.deepEqual((await place.fetch()).tree, { 'a.py': 'new', 'b.py': 'two', 'c.py': 'three' })
})

test('files of the last day are asked for each time, so a change within a minute is seen', needs('http'), async () => {
  await using place = await openPlace()
  const minute = Math.floor(Date.now() / minuteMs) * minuteMs - minuteMs
  await place.put('a.py', 'old', minute + 5000)
  await place.fetch()
  await place.put('a.py', 'new', minute + 25_000)
  assert.deepEqual((await place.fetch()).tree, { 'a.py': 'new' })
  assert.equal((await place.fetch()).requests, 2)
})

test('a file that grows older than a day is not asked for any more', needs('http'), async () => {
  await using place = await openPlace()
  let now = longAgo + dayMs - 1000
  await using proxy = await startTcpProxy({
    host: '127.0.0.1',
    port: Number(new URL(storageServer('http').url ?? '').port),
    // All dates are of one length.
    change: piece =>
      Buffer.from(
        piece.toString('latin1').replace(/^Date: .*(?=\r)/m, `Date: ${new Date(now).toUTCString()}`),
        'latin1',
      ),
  })
  const at = `http://127.0.0.1:${proxy.port}/`
  await place.put('a.py', 'a', longAgo)
  await place.fetch(at)
  assert.equal((await place.fetch(at)).requests, 2)
  now += 2000
  assert.equal((await place.fetch(at)).requests, 2)
  assert.equal((await place.fetch(at)).requests, 1)
})

test(
  'not seen is a file set back into the same minute at the same size, unless it is fetched',
  needs('http'),
  async () => {
    await using place = await openPlace()
    await place.put('a.py', 'old', longAgo)
    await place.fetch()
    await place.put('a.py', 'new', longAgo + 30_000)
    assert.deepEqual((await place.fetch()).tree, { 'a.py': 'old' })
    await rm(join(place.cacheDir, 'trees'), { recursive: true })
    await mkdir(join(place.cacheDir, 'trees'))
    assert.deepEqual((await place.fetch()).tree, { 'a.py': 'new' })
  },
)

test('two agents that have nothing fetch each file once', needs('http'), async () => {
  await using place = await openPlace()
  const names = Array.from({ length: 60 }, (_, at) => `${at}.py`)
  for (const name of names) await place.put(name, name, longAgo)
  const meters = [makeMeter(), makeMeter()]
  const fetches = meters.map(async (meter, at) => {
    const to = await place.makeTarget(`agent-${at}`)
    // As in a process of its own: it shares the folder and nothing else.
    const cache = await Cache.open(place.cacheDir)
    const remote = await openRemote(place.block, makeContext({ meter }))
    const options = { limits: defaultLimits, cacheLimits: defaultCacheLimits, meter, logger: undefined }
    await cache.fill(() => remote.folder(undefined), to, options, signal)
    assert.equal(Object.keys(await readTree(to)).length, names.length)
  })
  await Promise.all(fetches)
  assert.deepEqual(
    meters.map(({ files }) => files).toSorted((a, b) => a - b),
    [0, 60],
  )
  assert.equal((await place.fetch()).requests, 1)
})

test('a file that is replaced while it breaks off is not put together from both', needs('http'), async () => {
  const { url = '' } = storageServer('http')
  await using place = await openPlace()
  const size = 3_000_000
  await place.put('large.bin', 'a'.repeat(size), longAgo)
  let replacing: Promise<void> | undefined
  await using proxy = await startTcpProxy({
    host: '127.0.0.1',
    port: Number(new URL(url).port),
    cut({ bytesBefore }) {
      if (replacing || bytesBefore < 1_000_000) return undefined
      replacing = place.put('large.bin', 'b'.repeat(size), Date.now())
      return 0
    },
  })
  const { tree } = await place.fetch(`http://127.0.0.1:${proxy.port}/`)
  assert.ok(replacing)
  assert.ok(tree['large.bin'] === 'b'.repeat(size))
})

test('a page that is a file of its own is not believed', needs('http'), async () => {
  await using place = await openPlace()
  await place.put('a.py', 'old', longAgo)
  const [, day, month, year, time] = /(\d\d) (\w+) (\d+) (\d\d:\d\d)/.exec(new Date(longAgo).toUTCString()) ?? []
  await place.put('index.html', `<a href="a.py">a.py</a>   ${day}-${month}-${year} ${time}      3\r\n`, longAgo)
  await place.fetch()
  await place.put('a.py', 'new', Date.now())
  assert.deepEqual((await place.fetch()).tree, { 'a.py': 'new' })
})

test('only an exact date and size are read', () => {
  const minute = Date.UTC(2026, 10, 25, 2, 40)
  assert.deepEqual(readSaid('        25-Nov-2026 02:40                4096'), {
    minute,
    size: 4096,
    sign: `${minute}/4096`,
  })
  for (const text of [
    '',
    '  25-Nov-2026 02:40    4.0K ',
    '  25-Nov-2026 02:40     40K',
    '  25-Nov-2026 02:40       -',
    '  25-Foo-2026 02:40    4096',
    '  2026-11-25 02:40     4096',
    '  4096',
  ])
    assert.equal(readSaid(text), undefined, text)
})

test('what a page says is settled when the file itself says the same, and is a day old', () => {
  const said = readSaid('  25-Nov-2026 02:40  4096')
  assert(said)
  const answer = (changes: Record<string, string>) => {
    const headers: Record<string, string> = {
      date: 'Thu, 26 Nov 2026 02:41:00 GMT',
      'last-modified': 'Wed, 25 Nov 2026 02:40:36 GMT',
      'content-length': '4096',
      ...changes,
    }
    return isSettled(said, { header: (name: string) => headers[name] ?? '' })
  }
  assert.equal(answer({}), true)
  // A server that shows its own time.
  assert.equal(answer({ 'last-modified': 'Tue, 24 Nov 2026 21:10:36 GMT' }), true)
  for (const changes of [
    { date: 'Thu, 26 Nov 2026 02:40:35 GMT' },
    { date: '' },
    { 'last-modified': '' },
    { 'content-length': '4095' },
    { 'content-length': '' },
    // Another moment than the page's.
    { 'last-modified': 'Wed, 25 Nov 2026 02:38:36 GMT' },
    { 'last-modified': 'Tue, 24 Nov 2026 02:40:36 GMT' },
  ])
    assert.equal(answer(changes), false, JSON.stringify(changes))
})
