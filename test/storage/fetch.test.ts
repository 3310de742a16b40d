import assert from 'node:assert/strict'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { type CodeFacts, fetchCode } from '../../src/storage/fetch.ts'
import { makeDirectory } from '../support/directory.ts'
import { makeContext, readTree, writeTree } from './support.ts'

const signal = new AbortController().signal
const facts: CodeFacts = { path: null, entrypoint: 'flow.py:main', pull_steps: null, storage: undefined }

async function makePlace() {
  const directory = await makeDirectory()
  const to = join(directory.path, 'to')
  await mkdir(to)
  await writeTree(directory.path, { 'base/sub/flow.py': 'x' })
  const fetch = (changes: Partial<CodeFacts>) => fetchCode({ ...facts, ...changes }, to, makeContext(), signal)
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
  assert.equal(await place.fetch({ path: 'sub', storage }), 'fetched')
  assert.deepEqual(await readTree(place.to), { 'flow.py': 'x' })
})

test('a deployment whose path is the empty text gets the whole base path', async () => {
  await using place = await makePlace()
  const storage = { slug: 'local-file-system', data: { basepath: place.base } }
  assert.equal(await place.fetch({ path: '', storage }), 'fetched')
  assert.deepEqual(await readTree(place.to), { 'sub/flow.py': 'x' })
})

test('a deployment without a storage block gets the local folder that its path names', async () => {
  await using place = await makePlace()
  assert.equal(await place.fetch({ path: join(place.base, 'sub') }), 'fetched')
  assert.deepEqual(await readTree(place.to), { 'flow.py': 'x' })
})

test('without storage block and path there is nothing to fetch', async () => {
  await using place = await makePlace()
  assert.equal(await place.fetch({}), 'nothing to fetch')
  assert.deepEqual(await readTree(place.to), {})
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
