// What every driver must do, said once: each storage that a block can name runs through these tests against its real server.

import assert from 'node:assert/strict'
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { makeMeter, type StorageContext } from '../../src/storage/context.ts'
import { openStorage, type StorageBlock } from '../../src/storage/registry.ts'
import { maxAttempts } from '../../src/storage/retry.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs, type Requirement } from '../support/requires.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { makeContext, readTree } from './support.ts'
import { testWrites } from './write-contract.ts'

/** A storage of one's own on a real server, empty, with a base folder. */
export interface ContractPlace extends AsyncDisposable {
  /** Where the server listens. */
  readonly address: { readonly host: string; readonly port: number }
  /** The block for the base folder, with the server at another address (a proxy) or with a change that breaks it. */
  block(at?: { readonly host: string; readonly port: number }, flaw?: Flaw): StorageBlock
  /** Writes a file; the path is relative to the base folder. Missing where the server's side is not ours to write. */
  put(path: string, bytes: string | Uint8Array): Promise<void>
  /** Environment of the agent, for what blocks of this kind take from there. */
  readonly environment?: StorageContext['environment']
}

export type Flaw = 'wrong secret' | 'missing bucket' | 'no server'

export interface Contract {
  readonly name: string
  readonly requirement: Requirement
  readonly open: () => Promise<ContractPlace>
  /** The secret of the credentials: must not be in any error. */
  readonly secret?: () => string
  /** The server refuses wrong credentials. */
  readonly checksCredentials: boolean
  /** There is something like a bucket that may be missing. */
  readonly hasBucket: boolean
  /** The server keeps names that must never be written. */
  readonly takesHostileNames: boolean
  /** Of these, the ones that even this server cannot send. */
  readonly impossibleNames?: readonly string[]
  /** Files come one by one over a connection that a proxy can cut. */
  readonly resumes: boolean
  /** Says what has changed, file by file. */
  readonly reuses: boolean
  /** A folder that is asked for arrives under its own path, as Prefect's git blocks do it. */
  readonly keepsFolder?: boolean
  /** Prefect's block has put_directory, read_path and write_path. */
  readonly writes?: boolean
}

const signal = new AbortController().signal

const tree: Readonly<Record<string, string>> = {
  'flow.py': 'print("hello")\n',
  'pkg/__init__.py': '',
  'pkg/mod.py': 'x = 1\n',
  'data/ünï cödé & 100%+1 #2.txt': 'names\n',
  "data/quo'te;(x)=[y]@z,~$.txt": 'more names\n',
  'large.bin': 'abcdefgh'.repeat(100_000),
}

export function testContract(contract: Contract): void {
  const { name, requirement } = contract
  const check = (sentence: string, body: () => Promise<void>): void => {
    // node:test waits for it by itself.
    void test(`${name}: ${sentence}`, needs(requirement), body)
  }

  check('a tree arrives byte for byte', async () => {
    await using bench = await openBench(contract)
    await bench.putAll(tree)
    assert.deepEqual(await bench.fetch(), tree)
  })

  check('a folder arrives without its siblings that share its beginning', async () => {
    await using bench = await openBench(contract)
    await bench.putAll({ 'sub/a.py': 'a', 'sub-old/b.py': 'b', 'sub2/c.py': 'c', 'other/sub/d.py': 'd' })
    const expected = contract.keepsFolder ? { 'sub/a.py': 'a' } : { 'a.py': 'a' }
    assert.deepEqual(await bench.fetch({ from: 'sub' }), expected)
    assert.deepEqual(await bench.fetch({ from: './sub//' }), expected)
  })

  check('a path that leads out of the base is refused', async () => {
    await using bench = await openBench(contract)
    await assert.rejects(bench.fetch({ from: '../other' }), {
      name: 'StorageError',
      message: /leads out of the base path/,
    })
  })

  check('a folder that is not there is an error that names it', async () => {
    await using bench = await openBench(contract)
    await bench.putAll({ 'a.py': 'a' })
    await assert.rejects(bench.fetch({ from: 'nowhere' }), {
      name: 'StorageError',
      blame: 'run',
      message: /Could not fetch .*nowhere/,
    })
  })

  check('a path that names a file is an error', async () => {
    await using bench = await openBench(contract)
    await bench.putAll({ 'flow.py': 'a' })
    await assert.rejects(bench.fetch({ from: 'flow.py' }), {
      name: 'StorageError',
      message: /Could not fetch .*flow\.py.*(is a file|not a folder|not a directory)/i,
    })
  })

  check('what has not changed comes from the cache, what has changed does not', async () => {
    await using bench = await openBench(contract)
    await bench.putAll({ 'a.py': 'a', 'b/c.py': 'c' })
    await bench.fetch()
    const again = makeMeter()
    assert.deepEqual(await bench.fetch({ meter: again }), { 'a.py': 'a', 'b/c.py': 'c' })
    assert.deepEqual(
      { files: again.files, bytes: again.bytes, fromCache: again.fromCache },
      { files: 0, bytes: 0, fromCache: true },
    )
    await bench.putAll({ 'a.py': 'changed' })
    const changed = makeMeter()
    assert.deepEqual(await bench.fetch({ meter: changed }), { 'a.py': 'changed', 'b/c.py': 'c' })
    assert.equal(changed.fromCache, false)
    if (contract.reuses) assert.equal(changed.bytes, 'changed'.length)
  })

  check('ten runs at once are one download', async () => {
    await using bench = await openBench(contract)
    await bench.putAll({ 'a.py': 'a', 'b.py': 'b' })
    const meters = Array.from({ length: 10 }, makeMeter)
    const trees = await Promise.all(meters.map(meter => bench.fetch({ meter })))
    for (const tree of trees) assert.deepEqual(tree, { 'a.py': 'a', 'b.py': 'b' })
    assert.equal(meters.filter(meter => meter.files > 0).length, 1)
  })

  check('a server that is not there is an error that names it', async () => {
    await using bench = await openBench(contract)
    const error = await failure(bench.fetch({ flaw: 'no server' }))
    assert.match(error.message, /ECONNREFUSED|refused|couldn't connect/i)
    bench.assertNoSecret(error)
  })

  if (contract.checksCredentials) {
    check('wrong credentials fail at once, with their kind and the words of the server', async () => {
      await using bench = await openBench(contract)
      await bench.putAll({ 'a.py': 'a' })
      await using proxy = await startTcpProxy(bench.address)
      const meter = makeMeter()
      const at = { host: '127.0.0.1', port: proxy.port }
      const error = await failure(bench.fetch({ flaw: 'wrong secret', at, meter }))
      assert.match(error.message, /\(.*(key|token|password|signature|account|credential|user|principal).*\): /i)
      // What speaks HTTP asks again over the connection that it has.
      assert.ok(Math.max(proxy.connections, meter.requests) < maxAttempts, 'it was tried again')
      bench.assertNoSecret(error)
    })
  }

  if (contract.hasBucket) {
    check('a missing bucket is an error with the words of the server', async () => {
      await using bench = await openBench(contract)
      const error = await failure(bench.fetch({ flaw: 'missing bucket' }))
      assert.match(error.message, /404|no such|not (be )?found|not exist/i)
      bench.assertNoSecret(error)
    })
  }

  if (contract.takesHostileNames) {
    const names = ['../evil.py', 'sub/../../evil.py', 'a//b.py', 'sub/./x.py']
    for (const name of names.filter(name => !contract.impossibleNames?.includes(name))) {
      check(`the name ${name} is refused before anything is written`, async () => {
        await using bench = await openBench(contract)
        await bench.putAll({ 'flow.py': 'x', [name]: 'evil' })
        await assert.rejects(bench.fetch(), (error: Error) => {
          assert.match(error.message, /could lead out of the folder: nothing was written/)
          assert.ok(error.message.includes(JSON.stringify(name)), error.message)
          return true
        })
        assert.deepEqual(await bench.written(), [])
      })
    }

    check('a file and a folder of the same name are refused instead of one of them being dropped', async () => {
      await using bench = await openBench(contract)
      await bench.putAll({ name: 'file', 'name/x.py': 'x' })
      await assert.rejects(bench.fetch(), { name: 'StorageError', message: /"name" is there twice/ })
    })
  }

  if (contract.resumes) {
    check('connections that are cut again and again still bring the whole tree', async () => {
      await using bench = await openBench(contract)
      await bench.putAll(tree)
      await using proxy = await startTcpProxy({
        ...bench.address,
        cut: ({ bytesBefore, length }) =>
          bytesBefore + length > 250_000 ? Math.max(0, 250_000 - bytesBefore) : undefined,
      })
      assert.deepEqual(await bench.fetch({ at: { host: '127.0.0.1', port: proxy.port } }), tree)
      // 800 kB in pieces of at most 250 kB: begun again from the start it would never have arrived.
      assert.ok(proxy.connections >= 4)
    })

    check('a file that has had no turn yet on connections that are cut is not given up', async () => {
      await using bench = await openBench(contract)
      const many = Object.fromEntries(
        Array.from({ length: 24 }, (_, at) => [`${at}.bin`, String(at % 10).repeat(20_000)]),
      )
      await bench.putAll(many)
      await using proxy = await startTcpProxy({
        ...bench.address,
        cut: ({ bytesBefore, length }) =>
          bytesBefore + length > 50_000 ? Math.max(0, 50_000 - bytesBefore) : undefined,
      })
      assert.deepEqual(await bench.fetch({ at: { host: '127.0.0.1', port: proxy.port } }), many)
    })
  }

  if (contract.writes) testWrites(contract)

  check('limits on files and bytes are kept', async () => {
    await using bench = await openBench(contract)
    await bench.putAll({ 'a.py': '12345', 'b.py': '12345' })
    const limits = { maxSeconds: 60, maxFiles: 100, maxBytes: 100 }
    await assert.rejects(bench.fetch({ limits: { ...limits, maxFiles: 1 } }), {
      message: /more than the limit of 1 files/,
    })
    await assert.rejects(bench.fetch({ limits: { ...limits, maxBytes: 9 } }), {
      message: /more than the limit of 9 bytes/,
    })
  })
}

interface FetchChanges extends Partial<Pick<StorageContext, 'limits' | 'meter'>> {
  readonly from?: string
  readonly at?: { readonly host: string; readonly port: number }
  readonly flaw?: Flaw
}

async function openBench(contract: Contract) {
  const directory = await makeDirectory()
  const place = await contract.open()
  let serial = 0
  const work = join(directory.path, 'work')
  await mkdir(work)
  return {
    address: place.address,
    putAll: async (files: Readonly<Record<string, string>>) => {
      for (const [path, text] of Object.entries(files)) await place.put(path, text)
    },
    /** What arrives; each time in a new folder, through one cache. */
    fetch: async ({ from, at, flaw, ...changes }: FetchChanges = {}) => {
      const block = place.block(at, flaw)
      // After the block: where the server is may stand in the environment.
      const environment = place.environment ?? {}
      const context = makeContext({ cacheDir: join(directory.path, 'cache'), environment, ...changes })
      const to = join(work, String(serial++))
      await mkdir(to)
      const storage = await openStorage(block, context)
      await storage.getDirectory(from, to, signal)
      return readTree(to)
    },
    /** Everything that has been written into the target folders. */
    written: async () => (await readdir(work, { recursive: true })).filter(path => path.includes('/')),
    assertNoSecret: (error: Error) => {
      const secret = contract.secret?.()
      if (secret !== undefined) assertNoSecret(error, secret)
    },
    async [Symbol.asyncDispose]() {
      await place[Symbol.asyncDispose]()
      await directory[Symbol.asyncDispose]()
    },
  }
}

export async function failure(promise: Promise<unknown>): Promise<Error & { blame?: string }> {
  const error = await promise.then(
    () => assert.fail('it should have failed'),
    (error: Error) => error,
  )
  assert.equal(error.name, 'StorageError', error.stack ?? error.message)
  return error
}

/** In the whole error with its causes, as it is and in the encodings that protocols use. */
export function assertNoSecret(error: Error, secret: string): void {
  const bytes = Buffer.from(secret)
  const forms = [
    secret,
    encodeURIComponent(secret),
    bytes.toString('base64'),
    bytes.toString('base64url'),
    bytes.toString('hex'),
  ]
  const shown: string[] = []
  for (let at: unknown = error; at instanceof Error; at = at.cause)
    shown.push(at.message, at.stack ?? '', JSON.stringify(at))
  for (const form of forms) assert.ok(!shown.join('\n').includes(form), 'a secret is in the error')
}
