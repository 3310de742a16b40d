// What every storage that can be written to must do; a part of contract.ts. What is written is read back by the way that
// contract.ts proves by itself, and what is read was put there by the test's own client.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { makeMeter } from '../../src/storage/context.ts'
import { openWritableStorage, type StorageBlock } from '../../src/storage/registry.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import type { Contract, ContractPlace } from './contract.ts'
import { makeContext, readTree, type Tree, writeTree } from './support.ts'

const signal = new AbortController().signal

/** Names and sizes that need care on the way. */
const tree = {
  'flow.py': 'print("hello")\n',
  'pkg/__init__.py': '',
  'data/ünï cödé & 100%+1 #2.txt': 'names\n',
  "data/quo'te;(x)=[y]@z,~$.txt": 'more names\n',
  'large.bin': 'abcdefgh'.repeat(200_000),
}

export function testWrites(contract: Contract): void {
  const { name, requirement } = contract
  const check = (sentence: string, body: () => Promise<void>): void => {
    void test(`${name}: ${sentence}`, needs(requirement), body)
  }

  check('a folder that is uploaded arrives byte for byte, and is nowhere else', async () => {
    await using bench = await openBench(contract)
    await writeTree(bench.local, tree)
    const meter = makeMeter()
    const storage = await bench.storage({ meter })
    assert.equal(await storage.putDirectory(bench.local, 'apps/one', undefined, signal), 5)
    assert.deepEqual(await bench.fetch('apps/one'), tree)
    assert.deepEqual(
      Object.keys(await bench.fetch()).toSorted(),
      Object.keys(tree)
        .map(path => `apps/one/${path}`)
        .toSorted(),
    )
    assert.deepEqual([meter.files, meter.bytes > 1_600_000], [5, true])
  })

  check('an upload without a path goes to the base, over what is there', async () => {
    await using bench = await openBench(contract)
    await bench.put('flow.py', 'old and much longer')
    await bench.put('kept.py', 'kept')
    await writeTree(bench.local, { 'flow.py': 'new' })
    const storage = await bench.storage()
    await storage.putDirectory(bench.local, undefined, undefined, signal)
    assert.deepEqual(await bench.fetch(), { 'flow.py': 'new', 'kept.py': 'kept' })
  })

  check('what the ignore file names is not uploaded, and a tree of which nothing is left is an error', async () => {
    await using bench = await openBench(contract)
    await writeTree(bench.local, {
      'flow.py': 'f',
      'a.log': 'l',
      'build/x': 'x',
      'deep/build/y': 'y',
      '.env': 'SECRET=1',
    })
    const ignoreFile = join(bench.path, 'ignore')
    await writeFile(ignoreFile, '# not these\n*.log\nbuild/\n.env\n')
    const storage = await bench.storage()
    assert.equal(await storage.putDirectory(bench.local, '', ignoreFile, signal), 1)
    assert.deepEqual(await bench.fetch(), { 'flow.py': 'f' })
    await writeFile(ignoreFile, '*\n')
    await assert.rejects(storage.putDirectory(bench.local, '', ignoreFile, signal), {
      name: 'StorageError',
      message: /Could not upload .*There is no file below .*does not ignore/,
    })
  })

  check('a link out of the tree is not followed by an upload', async () => {
    await using bench = await openBench(contract)
    await writeTree(bench.local, { 'flow.py': 'f', passwd: { link: '/etc/passwd' } })
    const storage = await bench.storage()
    await assert.rejects(storage.putDirectory(bench.local, '', undefined, signal), {
      name: 'StorageError',
      message: /Link "passwd" points to "\/etc\/passwd", outside of the tree/,
    })
  })

  check('a file is written and read by its path', async () => {
    await using bench = await openBench(contract)
    const storage = await bench.storage()
    const bytes = Buffer.from(createHash('sha512').update('any').digest())
    await storage.writePath('results/2026/a b.bin', bytes, signal)
    assert.deepEqual(Buffer.from(await storage.readPath('results/2026/a b.bin', signal)), bytes)
    await storage.writePath('results/2026/a b.bin', Buffer.from('shorter'), signal)
    assert.deepEqual(await bench.fetch('results'), { '2026/a b.bin': 'shorter' })
    await bench.put('theirs.txt', 'theirs')
    assert.equal(Buffer.from(await storage.readPath('./theirs.txt', signal)).toString(), 'theirs')
  })

  check('a file that is not there, and a path that leads out of the base, are errors', async () => {
    await using bench = await openBench(contract)
    await bench.put('a.py', 'a')
    const storage = await bench.storage()
    await assert.rejects(storage.readPath('nowhere.txt', signal), {
      name: 'StorageError',
      message: /Could not read "nowhere\.txt" in /,
    })
    await assert.rejects(async () => storage.readPath('../a.py', signal), { message: /leads out of the base path/ })
    await assert.rejects(async () => storage.writePath('../a.py', Buffer.from('x'), signal), {
      message: /leads out of the base path/,
    })
    await assert.rejects(async () => storage.writePath('folder/', Buffer.from('x'), signal), {
      message: /names no file/,
    })
    await assert.rejects(async () => storage.putDirectory(bench.local, 'a/../../b', undefined, signal), {
      message: /leads out of the base path/,
    })
  })

  if (contract.resumes) {
    check('uploads whose connections are cut are sent again', async () => {
      await using bench = await openBench(contract)
      const files: Tree = Object.fromEntries(Array.from({ length: 40 }, (_, at) => [`f${at}`, 'x'.repeat(20_000)]))
      await writeTree(bench.local, files)
      let cuts = 0
      await using proxy = await startTcpProxy({
        ...bench.address,
        // Each of the first connections is cut in the middle of its first answer.
        cut: () => (cuts++ < 4 ? 10 : undefined),
      })
      const storage = await bench.storage({}, { host: '127.0.0.1', port: proxy.port })
      await storage.putDirectory(bench.local, '', undefined, signal)
      assert.ok(cuts >= 4)
      assert.deepEqual(await bench.fetch(), files)
    })
  }
}

async function openBench(contract: Contract) {
  const directory = await makeDirectory()
  const place: ContractPlace = await contract.open()
  const local = join(directory.path, 'local')
  await mkdir(local)
  let serial = 0
  const open = (block: StorageBlock, changes: Parameters<typeof makeContext>[0] = {}) =>
    // After the block: where the server is may stand in the environment.
    openWritableStorage(block, makeContext({ environment: place.environment ?? {}, ...changes }))
  return {
    path: directory.path,
    local,
    address: place.address,
    put: (path: string, text: string) => place.put(path, text),
    storage: (changes: Parameters<typeof makeContext>[0] = {}, at?: { host: string; port: number }) =>
      open(place.block(at), changes),
    fetch: async (from?: string) => {
      const to = join(directory.path, String(serial++))
      await mkdir(to)
      const storage = await open(place.block())
      await storage.getDirectory(from, to, signal)
      return readTree(to)
    },
    async [Symbol.asyncDispose]() {
      await place[Symbol.asyncDispose]()
      await directory[Symbol.asyncDispose]()
    },
  }
}
