import assert from 'node:assert/strict'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { inspect } from 'node:util'
import { type CodeFacts, fetchCode, hasCodeToFetch } from '../../src/storage/fetch.ts'
import type { Remote } from '../../src/storage/source.ts'
import { writableStorageOf } from '../../src/storage/write-storage.ts'
import { makeDirectory } from '../support/directory.ts'
import { makeContext, readTree, writeTree } from './support.ts'

const signal = new AbortController().signal
const readers = { block: async () => undefined, blockById: async () => undefined, variable: async () => undefined }
const scene = { readers, environment: {}, isHere: true }
const facts: CodeFacts = { path: null, pull_steps: null, storage: undefined }

async function makePlace() {
  const directory = await makeDirectory()
  const to = join(directory.path, 'to')
  await mkdir(to)
  await writeTree(directory.path, { 'base/sub/flow.py': 'x' })
  const fetch = (changes: Partial<CodeFacts>) => fetchCode({ ...facts, ...changes }, to, scene, makeContext(), signal)
  return {
    base: join(directory.path, 'base'),
    to,
    fetch,
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  }
}

test('a deployment with a storage block and a path gets the folder that the path names', async () => {
  await using place = await makePlace()
  const storage = { slug: 'local-file-system', data: { basepath: place.base } }
  assert.deepEqual(await place.fetch({ path: 'sub', storage }), { steps: undefined })
  assert.deepEqual(await readTree(place.to), { 'flow.py': 'x' })
})

test('a deployment whose path is the empty text gets the whole base path', async () => {
  await using place = await makePlace()
  const storage = { slug: 'local-file-system', data: { basepath: place.base } }
  await place.fetch({ path: '', storage })
  assert.deepEqual(await readTree(place.to), { 'sub/flow.py': 'x' })
})

test('a deployment without a storage block gets the local folder that its path names', async () => {
  await using place = await makePlace()
  await place.fetch({ path: join(place.base, 'sub') })
  assert.deepEqual(await readTree(place.to), { 'flow.py': 'x' })
})

test('what the agent fetches depends on steps, block, path and where the flow runs', () => {
  const local = { slug: 'local-file-system', data: {} }
  const s3 = { slug: 's3', data: {} }
  const [clone, directory] = [[{ 'prefect.deployments.steps.git_clone': {} }], [{ 'x.set_working_directory': {} }]]
  for (const [changes, here, elsewhere] of [
    [{}, false, false],
    [{ path: '' }, false, false],
    [{ path: '.' }, false, false],
    [{ path: '/flows', pull_steps: [] }, true, false],
    [{ path: '/flows', storage: local }, true, false],
    [{ storage: s3 }, true, true],
    [{ storage: s3, pull_steps: directory }, false, false],
    [{ storage: s3, pull_steps: [null, {}] }, false, false],
    [{ pull_steps: clone }, true, true],
  ] as const) {
    const both = [true, false].map(isHere => hasCodeToFetch({ ...facts, ...changes }, isHere))
    assert.deepEqual(both, [here, elsewhere], JSON.stringify(changes))
  }
})

test('what a driver throws by mistake is a StorageError, without what it holds', async () => {
  await using place = await makePlace()
  const address = 'http://u:secret@['
  const stumble = () => assert.fail(new URL(address).href)
  const remote: Remote = { folder: stumble }
  const storage = writableStorageOf(remote, stumble, makeContext())
  const acts = [
    () => storage.getDirectory(undefined, place.to, signal),
    () => storage.putDirectory(place.base, undefined, undefined, signal),
    () => storage.readPath('x', signal),
    () => storage.writePath('x', Buffer.from('x'), signal),
  ]
  for (const act of acts) {
    await assert.rejects(act(), (error: Error) => {
      assert.equal(error.name, 'StorageError')
      assert.match(error.message, /Invalid URL/)
      assert.doesNotMatch(inspect(error), /secret/)
      return true
    })
  }
})

test('a relative path without a storage block is refused with what to do', async () => {
  await using place = await makePlace()
  await assert.rejects(place.fetch({ path: 'flows' }), {
    name: 'StorageError',
    message: /"flows" is relative: give it an absolute/,
  })
})

test('a local path that is not on this machine is named', async () => {
  await using place = await makePlace()
  await assert.rejects(place.fetch({ path: '/nowhere/flows' }), {
    name: 'StorageError',
    blame: 'run',
    message: /"\/nowhere\/flows"/,
  })
})
