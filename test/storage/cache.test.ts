// What the cache promises while all goes well; cache-faults.test.ts has the rest.

import assert from 'node:assert/strict'
import { readdir, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { run } from '../support/run.ts'
import { until } from '../support/until.ts'
import { makeFiles, openCachePlace } from './cache-place.ts'
import type { FetchOrder } from './fetch-main.ts'
import { objectServerSecret } from './object-server.ts'
import { readTree } from './support.ts'

const fetchMain = join(import.meta.dirname, 'fetch-main.ts')
const large = 'L'.repeat(300_000)
const folder = (name: string): Record<string, string> => ({ [`${name}/large`]: name.repeat(300_000) })

test('what has not changed costs one listing and no file', async () => {
  await using place = await openCachePlace({ 'a.py': 'a', 'b/c.py': 'c' })
  await place.fetch()
  place.server.requests.length = 0
  const { tree, meter } = await place.fetch()
  assert.deepEqual(tree, { 'a.py': 'a', 'b/c.py': 'c' })
  assert.equal(meter.fromCache, true)
  assert.deepEqual(place.server.requests, ['LIST'])
})

test('the source is asked each time: what was changed, added and removed since the last run is seen by the next', async () => {
  await using place = await openCachePlace({ 'a.py': 'one', 'b.py': 'same', 'gone.py': 'x' })
  await place.fetch()
  place.server.objects.set('a.py', Buffer.from('two'))
  place.server.objects.set('new.py', Buffer.from('n'))
  place.server.objects.delete('gone.py')
  place.server.requests.length = 0
  const { tree } = await place.fetch()
  assert.deepEqual(tree, { 'a.py': 'two', 'b.py': 'same', 'new.py': 'n' })
  // Only what is new is fetched.
  assert.deepEqual(place.server.requests.toSorted(), ['LIST', 'a.py', 'new.py'])
})

test('the same content is kept once, wherever it came from', async () => {
  await using place = await openCachePlace({ 'one/a.py': 'a', 'one/large': large, 'two/a.py': 'a', 'two/large': large })
  const first = await place.fetch({ folder: 'one' })
  const second = await place.fetch({ folder: 'two' })
  assert.deepEqual(second.tree, first.tree)
  assert.equal((await place.list('trees')).length, 1)
  assert.equal((await place.list('refs')).length, 2)
})

test('ten runs at once are one download', async () => {
  await using place = await openCachePlace(makeFiles(50))
  const fetched = await Promise.all(Array.from({ length: 10 }, () => place.fetch()))
  for (const { tree } of fetched) assert.equal(Object.keys(tree).length, 50)
  const reads = place.server.requests.filter(request => request !== 'LIST')
  assert.equal(reads.length, 50)
  // One before the download; one for all who came while it went on.
  assert.equal(place.server.requests.length - reads.length, 2)
})

test('agents in processes of their own share one download and one cache', async () => {
  await using place = await openCachePlace(makeFiles(50))
  place.server.delayMs = 50
  const orders = await Promise.all(
    Array.from({ length: 4 }, async (): Promise<FetchOrder> => {
      return { block: place.server.block(), to: await place.makeTarget(), cacheDir: place.cacheDir }
    }),
  )
  const runs = await Promise.all(orders.map(order => run(process.execPath, [fetchMain, JSON.stringify(order)])))
  for (const { code, stderr } of runs) assert.equal(code, 0, stderr)
  for (const { to } of orders) assert.equal(Object.keys(await readTree(to)).length, 50)
  assert.equal(place.server.requests.filter(request => request !== 'LIST').length, 50)
  assert.equal((await place.list('trees')).length, 1)
  await place.assertNothingHalfDone()
})

test('nothing is to be seen of a download before it is whole, and nothing is left of one that was given up', async () => {
  await using place = await openCachePlace({ 'a.py': 'a', 'b.py': 'b', large })
  const controller = new AbortController()
  place.server.delayMs = 'held'
  const fetching = place.fetch({ signal: controller.signal })
  await until(() => place.server.held === 1)
  place.server.release()
  place.server.delayMs = 'held'
  await until(() => place.server.held === 3)
  assert.deepEqual(await place.list('trees'), [])
  assert.deepEqual(await place.list('refs'), [])
  assert.equal((await place.list('staging')).length, 1)
  controller.abort(new Error('given up'))
  await assert.rejects(fetching, /given up/)
  await until(async () => {
    await place.assertNothingHalfDone()
    return true
  })
  place.server.release()
  assert.deepEqual((await place.fetch()).tree, { 'a.py': 'a', 'b.py': 'b', large })
})

test('one who gives up does not take the download from those who wait for it', async () => {
  await using place = await openCachePlace({ 'a.py': 'a' })
  place.server.delayMs = 'held'
  const controller = new AbortController()
  const first = place.fetch({ signal: controller.signal })
  await until(() => place.server.held === 1)
  const second = place.fetch()
  controller.abort(new Error('given up'))
  await assert.rejects(first, /given up/)
  await until(() => place.server.held > 0)
  place.server.release()
  assert.deepEqual((await second).tree, { 'a.py': 'a' })
})

test('one who comes after another has given up waiting gets the next download', async () => {
  await using place = await openCachePlace({ 'a.py': 'a' })
  place.server.delayMs = 'held'
  const first = place.fetch()
  await until(() => place.server.held === 1)
  const controller = new AbortController()
  const second = place.fetch({ signal: controller.signal })
  await delay(50)
  controller.abort(new Error('given up'))
  await assert.rejects(second, /given up/)
  const third = place.fetch()
  place.server.release()
  assert.deepEqual((await first).tree, { 'a.py': 'a' })
  assert.deepEqual((await third).tree, { 'a.py': 'a' })
})

test('a run that writes into its workspace changes it for nobody else', async () => {
  await using place = await openCachePlace({ 'a.py': 'a', large })
  const first = await place.fetch()
  for (const name of ['a.py', 'large']) {
    assert.equal((await stat(join(first.to, name))).nlink, 1, 'a hard link would be written through')
    await writeFile(join(first.to, name), 'written by the run')
  }
  assert.deepEqual((await place.fetch()).tree, { 'a.py': 'a', large })
  await place.assertSound()
})

test('a workspace of thousands of files is made beside the event loop, not on it', async () => {
  await using place = await openCachePlace(makeFiles(2000))
  await place.fetch()
  const to = await place.makeTarget()
  const ended = new AbortController()
  const watching = watchEventLoop(ended.signal)
  const before = process.cpuUsage()
  const { meter } = await place.fetch({ to })
  const took = sum(process.cpuUsage(before))
  ended.abort()
  const longest = await watching
  assert.equal(meter.fromCache, true)
  assert.ok(longest < took / 3, `the event loop was busy for ${longest} of ${took} µs at a stretch`)
})

/** The longest that a timer of 1 ms had to wait, in time of the processor: this machine may stand still. */
async function watchEventLoop(signal: AbortSignal): Promise<number> {
  let longest = 0
  for (let last = process.threadCpuUsage(); !signal.aborted; last = process.threadCpuUsage()) {
    await delay(1)
    longest = Math.max(longest, sum(process.threadCpuUsage(last)))
  }
  return longest
}

function sum({ user, system }: NodeJS.CpuUsage): number {
  return user + system
}

test('what was used least recently goes first when the cache is larger than its limit', async () => {
  await using place = await openCachePlace({ ...folder('1'), ...folder('2'), ...folder('3') })
  const cacheLimits = { maxBytes: 700_000, maxAgeDays: 30 }
  const fetch = (name: string) => place.fetch({ folder: name, cacheLimits })
  await fetch('1')
  await delay(20)
  await fetch('2')
  await delay(20)
  assert.equal((await fetch('1')).meter.fromCache, true)
  await delay(20)
  await fetch('3')
  assert.equal((await place.list('trees')).length, 2)
  assert.equal((await fetch('1')).meter.fromCache, true)
  assert.equal((await fetch('3')).meter.fromCache, true)
  assert.equal((await fetch('2')).meter.fromCache, false)
  // References to what is gone do not heap up.
  assert.equal((await place.list('refs')).length, 2)
})

test('one tree that is larger than the whole cache may be is fetched all the same', async () => {
  await using place = await openCachePlace({ large })
  assert.deepEqual((await place.fetch({ cacheLimits: { maxBytes: 1, maxAgeDays: 30 } })).tree, { large })
})

test('what was not used for long goes', async () => {
  await using place = await openCachePlace({ '1/a.py': 'a', '2/b.py': 'b' })
  await place.fetch({ folder: '1' })
  const [old = ''] = await place.list('trees')
  const twoDaysAgo = Date.now() / 1000 - 2 * 24 * 3600
  await utimes(join(place.cacheDir, 'trees', old, 'manifest.json'), twoDaysAgo, twoDaysAgo)
  await place.fetch({ folder: '2', cacheLimits: { maxBytes: 1e9, maxAgeDays: 1 } })
  assert.equal((await place.list('trees')).includes(old), false)
  assert.equal((await place.list('trees')).length, 1)
})

test('no secret lies in the cache, and only its owner may read it', async () => {
  await using place = await openCachePlace({ 'a.py': 'a', large })
  await place.fetch()
  assert.equal((await place.readCache()).includes(objectServerSecret), false)
  for (const name of ['', ...(await readdir(place.cacheDir, { recursive: true }))]) {
    const { mode } = await stat(join(place.cacheDir, name))
    assert.equal(mode & 0o077, 0, name)
  }
})
