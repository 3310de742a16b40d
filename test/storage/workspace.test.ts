import assert from 'node:assert/strict'
import { chmod, mkdir, readdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { makeWorkspace, removeTree, sweepWorkspaces } from '../../src/storage/workspace.ts'
import { makeDirectory } from '../support/directory.ts'
import { readTree } from './support.ts'

const signal = new AbortController().signal

test('a workspace is private and appears only when it is whole', async () => {
  await using directory = await makeDirectory()
  const place = { root: join(directory.path, 'runs'), name: 'run-1' }
  const path = await makeWorkspace(
    place,
    async filling => {
      assert.notEqual(filling, join(place.root, place.name))
      await writeFile(join(filling, 'flow.py'), 'x')
      await assert.rejects(stat(join(place.root, place.name)), { code: 'ENOENT' })
    },
    signal,
  )
  assert.equal((await stat(path)).mode & 0o777, 0o700)
  assert.deepEqual(await readTree(path), { 'flow.py': 'x' })
  assert.deepEqual(await readdir(place.root), ['run-1'])
})

test('a workspace that could not be filled leaves nothing behind', async () => {
  await using directory = await makeDirectory()
  const filling = makeWorkspace(
    { root: directory.path, name: 'run-1' },
    async partial => {
      await writeFile(join(partial, 'half'), 'x')
      throw new Error('cut off')
    },
    signal,
  )
  await assert.rejects(filling, /cut off/)
  assert.deepEqual(await readdir(directory.path), [])
})

test('a second try replaces what the first has left', async () => {
  await using directory = await makeDirectory()
  const place = { root: directory.path, name: 'run-1' }
  await makeWorkspace(place, partial => writeFile(join(partial, 'old'), 'x'), signal)
  const path = await makeWorkspace(place, partial => writeFile(join(partial, 'new'), 'x'), signal)
  assert.deepEqual(await readTree(path), { new: 'x' })
})

test('an abort while filling leaves nothing behind', async () => {
  await using directory = await makeDirectory()
  const controller = new AbortController()
  const filling = makeWorkspace(
    { root: directory.path, name: 'run-1' },
    async () => controller.abort(new Error('stopped')),
    controller.signal,
  )
  await assert.rejects(filling, /stopped/)
  assert.deepEqual(await readdir(directory.path), [])
})

test('sweeping removes half-made and foreign workspaces and keeps those of living runs', async () => {
  await using directory = await makeDirectory()
  for (const name of ['run-1', 'run-2', '.partial-abc'])
    await mkdir(join(directory.path, name, 'sub'), { recursive: true })
  await sweepWorkspaces(directory.path, new Set(['run-2']))
  assert.deepEqual(await readdir(directory.path), ['run-2'])
  await sweepWorkspaces(join(directory.path, 'not-there'), new Set())
})

test('a workspace with read-only folders can be removed', async () => {
  await using directory = await makeDirectory()
  const tree = join(directory.path, 'tree')
  await mkdir(join(tree, 'closed'), { recursive: true })
  await writeFile(join(tree, 'closed', 'file'), 'x')
  await chmod(join(tree, 'closed'), 0o500)
  await removeTree(tree)
  await removeTree(tree)
  assert.deepEqual(await readdir(directory.path), [])
})
