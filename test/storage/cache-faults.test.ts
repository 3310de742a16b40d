// What the cache promises when things go wrong: damage, sudden ends, full disks, other hands.

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmod, mkdir, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { defaultLimits } from '../../src/storage/context.ts'
import { ownName } from '../../src/storage/owner.ts'
import { openStorage } from '../../src/storage/registry.ts'
import type { StorageError } from '../../src/storage/storage.ts'
import { runTreeJob } from '../../src/storage/tree-thread.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { mountSmallDisk } from '../support/small-disk.ts'
import { type CachePlace, makeFiles, openCachePlace } from './cache-place.ts'
import type { FetchOrder } from './fetch-main.ts'
import { makeContext } from './support.ts'

const fetchMain = join(import.meta.dirname, 'fetch-main.ts')
const large = 'L'.repeat(300_000)
const files = { 'a.py': 'a = 1\n', 'b/c.py': 'c = 1\n', large }

/** Flips one bit in the middle of a file. */
async function flipBit(path: string): Promise<void> {
  await using file = await open(path, 'r+')
  const at = Math.floor((await file.stat()).size / 2)
  const byte = Buffer.alloc(1)
  await file.read(byte, 0, 1, at)
  await file.write(Buffer.from([(byte[0] ?? 0) ^ 4]), 0, 1, at)
}

async function onlyTree(place: CachePlace): Promise<string> {
  const [id = ''] = await place.list('trees')
  return join(place.cacheDir, 'trees', id)
}

for (const [what, file] of [
  ['a small file', 'pack'],
  ['a large file', 'large/0'],
  ['the manifest', 'manifest.json'],
] as const) {
  test(`a bit that the disk flips in ${what} reaches no run, and the cache heals`, async () => {
    await using place = await openCachePlace(files)
    await place.fetch()
    await flipBit(join(await onlyTree(place), file))
    const { tree, meter } = await place.fetch()
    assert.deepEqual(tree, files)
    assert.equal(meter.fromCache, false)
    assert.equal((await place.fetch()).meter.fromCache, true)
    await place.assertSound()
    await place.assertNothingHalfDone()
  })

  test(`${what} that is cut short or gone reaches no run, and the cache heals`, async () => {
    await using place = await openCachePlace(files)
    await place.fetch()
    await writeFile(join(await onlyTree(place), file), '')
    assert.deepEqual((await place.fetch()).tree, files)
    await rm(join(await onlyTree(place), file))
    assert.deepEqual((await place.fetch()).tree, files)
    assert.equal((await place.fetch()).meter.fromCache, true)
  })
}

test('a manifest that says something else than its name does is not believed', async () => {
  await using place = await openCachePlace(files)
  await place.fetch()
  const manifest = join(await onlyTree(place), 'manifest.json')
  await writeFile(manifest, (await readFile(manifest, 'utf8')).replace('"a.py"', '"z.py"'))
  assert.deepEqual((await place.fetch()).tree, files)
})

test('a damaged file is not taken over into the next version of the tree either', async () => {
  await using place = await openCachePlace(files)
  await place.fetch()
  await flipBit(join(await onlyTree(place), 'pack'))
  place.server.objects.set('new.py', Buffer.from('n'))
  assert.deepEqual((await place.fetch()).tree, { ...files, 'new.py': 'n' })
})

test('damaged references and a damaged key cost a download and nothing else', async () => {
  await using place = await openCachePlace(files)
  await place.fetch()
  const [reference = ''] = await place.list('refs')
  await writeFile(join(place.cacheDir, 'refs', reference), '{"version":')
  assert.deepEqual((await place.fetch()).tree, files)
  // As a full disk leaves it; read by the next process.
  await writeFile(join(place.cacheDir, 'key'), '')
  assert.deepEqual(await fetchInChild(place), { code: 0, files: 3 })
  assert.equal((await stat(join(place.cacheDir, 'key'))).size, 32)
  assert.deepEqual(await fetchInChild(place), { code: 0, files: 0 })
})

test('a cache that is deleted under a running agent is made again', async () => {
  await using place = await openCachePlace(files)
  await place.fetch()
  await rm(place.cacheDir, { recursive: true })
  assert.deepEqual((await place.fetch()).tree, files)
  assert.deepEqual((await place.fetch()).tree, files)
  assert.equal((await place.fetch()).meter.fromCache, true)
})

test('a cache folder that others may write to is not used, and the run gets its code without it', async () => {
  await using place = await openCachePlace(files)
  await mkdir(place.cacheDir)
  await chmod(place.cacheDir, 0o777)
  assert.deepEqual((await place.fetch()).tree, files)
  assert.deepEqual(await readdir(place.cacheDir), [])
})

async function fetchInChild(place: CachePlace): Promise<{ code: unknown; files: unknown }> {
  const order: FetchOrder = { block: place.server.block(), to: await place.makeTarget(), cacheDir: place.cacheDir }
  const child = spawn(process.execPath, [fetchMain, JSON.stringify(order)], { stdio: ['ignore', 'pipe', 'inherit'] })
  let said = ''
  child.stdout.on('data', (text: Buffer) => {
    said += text.toString()
  })
  const [code] = await once(child, 'close')
  return { code, files: said === '' ? undefined : JSON.parse(said).files }
}

const kills = Number(process.env.RIGEL_TEST_CACHE_KILLS || 8)

test(`${kills} processes killed at random moments leave nothing that is believed and nothing that stays`, async () => {
  const many = { ...makeFiles(150, 2000), large, 'larger.bin': 'M'.repeat(2_000_000) }
  await using place = await openCachePlace(many)
  place.server.delayMs = 1
  // How long a whole one takes on this machine just now, with the start of the process.
  const started = performance.now()
  assert.equal((await fetchInChild(place)).code, 0)
  let whole = performance.now() - started
  await rm(place.cacheDir, { recursive: true })
  let killed = 0
  // More than so many where they end before they are killed.
  for (let at = 0; at < kills || killed < kills / 2; at++) {
    // So that each has something to do, and something of the one before to reuse.
    place.server.objects.set('a.py', Buffer.from(`version ${at}`))
    const started = performance.now()
    const order: FetchOrder = { block: place.server.block(), to: await place.makeTarget(), cacheDir: place.cacheDir }
    const child = spawn(process.execPath, [fetchMain, JSON.stringify(order)], { stdio: 'ignore' })
    const ended = once(child, 'exit')
    await Promise.race([delay(whole * (0.2 + 0.8 * Math.random())), ended])
    child.kill('SIGKILL')
    const [, signal] = await ended
    if (signal === 'SIGKILL') killed += 1
    else whole = Math.min(whole, performance.now() - started)
    if (at % 4 === 3) await checkAfterKill(place, { ...many, 'a.py': `version ${at}` })
  }
  await checkAfterKill(place, { ...many, 'a.py': String(place.server.objects.get('a.py')) })
})

async function checkAfterKill(place: CachePlace, expected: Record<string, string>): Promise<void> {
  assert.deepEqual((await place.fetch()).tree, expected)
  await place.assertSound()
  // Half-done things are swept when something is fetched.
  place.server.objects.set('b.py', Buffer.from(String(Math.random())))
  await place.fetch()
  place.server.objects.delete('b.py')
  await place.assertNothingHalfDone()
}

test('a process that waits for one that is killed takes over, and many that wait fetch once', async () => {
  await using place = await openCachePlace(makeFiles(20))
  place.server.delayMs = 'held'
  const order: FetchOrder = { block: place.server.block(), to: await place.makeTarget(), cacheDir: place.cacheDir }
  const first = spawn(process.execPath, [fetchMain, JSON.stringify(order)], { stdio: 'ignore' })
  while (place.server.held === 0) await delay(10)
  place.server.release()
  place.server.delayMs = 'held'
  while (place.server.held < 20) await delay(10)
  assert.equal((await place.list('locks')).length, 1)
  // The three come to the lock of the first, which is in the middle of its download.
  place.server.delayMs = 0
  const waiting = [fetchInChild(place), fetchInChild(place), fetchInChild(place)]
  while (place.server.requests.filter(request => request === 'LIST').length < 4) await delay(10)
  place.server.requests.length = 0
  first.kill('SIGKILL')
  const ended = await Promise.all(waiting)
  assert.deepEqual(
    ended.map(({ code }) => code),
    [0, 0, 0],
  )
  assert.equal(place.server.requests.filter(request => request !== 'LIST').length, 20)
  assert.deepEqual(
    ended.map(({ files }) => Number(files)).toSorted((a, b) => a - b),
    [0, 0, 20],
  )
})

test('a cache whose disk is full makes room', needs('root'), async () => {
  await using place = await openCachePlace({ '1/large': '1'.repeat(600_000), '2/large': '2'.repeat(600_000) })
  await using disk = await mountSmallDisk(1024)
  const cacheDir = join(disk.path, 'cache')
  await place.fetch({ folder: '1', cacheDir })
  const { tree } = await place.fetch({ folder: '2', cacheDir })
  assert.deepEqual(tree, { large: '2'.repeat(600_000) })
  assert.equal((await readdir(join(cacheDir, 'trees'))).length, 1)
  assert.equal((await place.fetch({ folder: '2', cacheDir })).meter.fromCache, true)
})

test('a tree for which the disk of the cache has no room at all is fetched without it', needs('root'), async () => {
  await using place = await openCachePlace({ large, 'larger.bin': 'M'.repeat(2_000_000) })
  await using disk = await mountSmallDisk(1024)
  const cacheDir = join(disk.path, 'cache')
  const { tree } = await place.fetch({ cacheDir })
  assert.deepEqual(Object.keys(tree), ['large', 'larger.bin'])
  for (const name of ['trees', 'staging', 'locks', 'trash'])
    assert.deepEqual(await readdir(join(cacheDir, name)), [], name)
})

test(
  'a disk that is full for cache and workspace alike is blamed on this host, and nothing is left',
  needs('root'),
  async () => {
    await using place = await openCachePlace({ 'larger.bin': 'M'.repeat(2_000_000) })
    await using disk = await mountSmallDisk(1024)
    const to = join(disk.path, 'workspace')
    await mkdir(to)
    place.server.requests.length = 0
    await assert.rejects(place.fetch({ cacheDir: join(disk.path, 'cache'), to }), {
      name: 'StorageError',
      blame: 'host',
      message: /no space left/,
    })
    // There was nothing to make room with, so it was not fetched again for nothing.
    assert.deepEqual(place.server.requests, ['LIST', 'larger.bin'])
    for (const name of ['trees', 'staging', 'locks', 'trash'])
      assert.deepEqual(await readdir(join(disk.path, 'cache', name)), [], name)
  },
)

test('a cache that gives its room to the workspace on the same disk', needs('root'), async () => {
  await using place = await openCachePlace({ '1/large': '1'.repeat(300_000), '2/large': '2'.repeat(300_000) })
  await using disk = await mountSmallDisk(800)
  const cacheDir = join(disk.path, 'cache')
  const to = join(disk.path, 'workspace')
  await mkdir(to)
  await place.fetch({ folder: '1', cacheDir })
  // 300 kB of the old tree, 300 of the new one and 300 of the workspace are more than there is.
  assert.deepEqual((await place.fetch({ folder: '2', cacheDir, to })).tree, { large: '2'.repeat(300_000) })
})

test(
  'a disk without room for a few names more is no reason to wait, neither then nor when there is room again',
  needs('root'),
  async () => {
    await using place = await openCachePlace(files)
    // From none of the cache's folders to all of a download.
    for (let inodes = 2; inodes < 24; inodes++) {
      await using disk = await mountSmallDisk(1024, inodes)
      const cacheDir = join(disk.path, 'cache')
      const limits = { ...defaultLimits, maxSeconds: 120 }
      assert.deepEqual((await place.fetch({ cacheDir, limits })).tree, files, `${inodes} names`)
      disk.makeRoom()
      assert.deepEqual((await place.fetch({ cacheDir, limits })).tree, files, `${inodes} names, then room`)
    }
  },
)

test('a large file that has to be begun anew is whole in the cache', async () => {
  await using place = await openCachePlace({ large })
  place.server.cuts = 2
  assert.deepEqual((await place.fetch()).tree, { large })
  assert.deepEqual(place.server.requests, ['LIST', 'large', 'large', 'large'])
  await place.assertSound()
})

test('words of a server cost nobody the cache', async () => {
  await using place = await openCachePlace({ '1/a.py': 'a', '2/b.py': 'b' })
  await place.fetch({ folder: '1' })
  place.server.refusal = 'ENOSPC: no space left on device'
  await assert.rejects(place.fetch({ folder: '2' }), { name: 'StorageError', blame: 'run', message: /ENOSPC/ })
  place.server.refusal = undefined
  assert.equal((await place.fetch({ folder: '1' })).meter.fromCache, true)
})

test('a missing file of the block itself is told as that, and is not the fault of this host', async () => {
  await using directory = await makeDirectory()
  const cacheDir = join(directory.path, 'cache')
  const to = join(directory.path, 'to')
  await mkdir(to)
  const data = { basepath: `zip://::file://${directory.path}/nope.zip` }
  const storage = await openStorage({ slug: 'remote-file-system', data }, makeContext({ cacheDir }))
  await assert.rejects(storage.getDirectory(undefined, to, new AbortController().signal), (error: StorageError) => {
    assert.equal(error.blame, 'run')
    assert.match(error.message, /nope\.zip/)
    assert.doesNotMatch(error.message, /cache/i)
    return true
  })
})

test('a job that hangs in the system holds up no other', async () => {
  await using place = await openCachePlace(files)
  await place.fetch()
  const [id = ''] = await place.list('trees')
  // Whoever opens a pipe waits until somebody writes, as for a network disk that is gone.
  const hanging = join(place.path, 'hanging')
  await mkdir(hanging)
  const pipe = join(hanging, 'manifest.json')
  execFileSync('mkfifo', [pipe])
  const controller = new AbortController()
  const stuck = runTreeJob({ kind: 'unpack', tree: hanging, id, to: undefined }, controller.signal)
  const waiting = place.fetch()
  controller.abort(new Error('given up'))
  await assert.rejects(stuck, /given up/)
  assert.deepEqual((await waiting).tree, files)
  // Lets the thread go, for this process must end. To open a pipe for both waits for nobody, should there be none in it.
  await (await open(pipe, 'r+')).close()
})

test('what a killed process has left and something still writes to is no reason for a fetch to fail', async () => {
  await using place = await openCachePlace(files)
  await place.fetch()
  // Ours, had we started just after the machine.
  const left = join(place.cacheDir, 'staging', `${ownName().split('-').with(3, '1').join('-')}-abcdef.0`)
  await mkdir(left)
  // `true`, for a shell ends when what `:` writes to is gone.
  const script = 'i=0; while :; do mkdir -p "$1/d"; true >"$1/d/$i"; i=$((i+1)); done'
  const writer = spawn('sh', ['-c', script, 'sh', left], { stdio: 'ignore' })
  const ended = once(writer, 'exit')
  try {
    for (let at = 0; at < 3; at++) {
      place.server.objects.set('a.py', Buffer.from(String(at)))
      assert.deepEqual((await place.fetch()).tree, { ...files, 'a.py': String(at) })
    }
  } finally {
    writer.kill('SIGKILL')
  }
  assert.deepEqual(await ended, [null, 'SIGKILL'], 'it wrote all the time')
})

test(
  'what git has no room for in the cache is fetched without it, and with no room at all this host is to blame',
  needs('root'),
  async () => {
    await using directory = await makeDirectory()
    const git = (...words: readonly string[]) => execFileSync('git', ['-C', directory.path, ...words])
    await writeFile(join(directory.path, 'noise.txt'), randomBytes(1_500_000).toString('base64'))
    git('init', '--quiet', '--initial-branch=main')
    git('add', '.')
    git('-c', 'user.name=t', '-c', 'user.email=t@localhost', 'commit', '--quiet', '--message=noise')
    await using disk = await mountSmallDisk(1024)
    const block = { slug: 'github', data: { repository: `file://${directory.path}`, include_git_objects: false } }
    const environment = { PATH: process.env.PATH ?? '' }
    const storage = await openStorage(block, makeContext({ environment, cacheDir: join(disk.path, 'cache') }))
    const to = join(directory.path, 'to')
    await mkdir(to)
    await storage.getDirectory(undefined, to, new AbortController().signal)
    assert.deepEqual((await readdir(to)).toSorted(), ['noise.txt'])
    const full = join(disk.path, 'to')
    await mkdir(full)
    await assert.rejects(storage.getDirectory(undefined, full, new AbortController().signal), {
      name: 'StorageError',
      blame: 'host',
      message: /No space left on device/,
    })
  },
)
