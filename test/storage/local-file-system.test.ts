import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { openStorage, openWritableStorage } from '../../src/storage/registry.ts'
import { StorageError } from '../../src/storage/storage.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { makeContext, readTree, type Tree, writeTree } from './support.ts'

const signal = new AbortController().signal

/** A base folder with that tree, and an empty folder to fetch into. */
async function makePlace(tree: Tree) {
  const directory = await makeDirectory()
  const base = join(directory.path, 'base')
  const to = join(directory.path, 'to')
  await mkdir(base)
  await mkdir(to, { mode: 0o700 })
  await writeTree(base, tree)
  const fetch = async (
    from?: string,
    changes: { basepath?: string | null; maxFiles?: number; maxBytes?: number } = {},
  ) => {
    const { basepath = base, maxFiles = 1000, maxBytes = 1_000_000 } = changes
    const context = makeContext({ home: directory.path, limits: { maxFiles, maxBytes, maxSeconds: 60 } })
    const storage = await openStorage({ slug: 'local-file-system', data: { basepath } }, context)
    await storage.getDirectory(from, to, signal)
    return readTree(to)
  }
  return { directory: directory.path, base, to, fetch, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() }
}

test('a local folder arrives byte for byte and mode for mode, links inside of it as links', async () => {
  const tree: Tree = {
    'flow.py': 'print(1)\n',
    'bin/run.sh': { mode: 0o755, text: '#!/bin/sh\n' },
    'bin/secret': { mode: 0o600, text: 'x' },
    empty: null,
    'lib/current': { link: '../bin' },
    'lib/gone': { link: 'not-there' },
    'näme with "quotes" ünd\nnewline': '',
  }
  await using place = await makePlace(tree)
  assert.deepEqual(await place.fetch(), await readTree(place.base))
  assert.deepEqual(await readTree(place.to), tree)
})

test('times of files are kept, so that compiled Python files stay valid', async () => {
  await using place = await makePlace({ 'a/flow.py': 'x' })
  await utimes(join(place.base, 'a/flow.py'), 1_600_000_000, 1_600_000_000)
  await place.fetch()
  assert.equal((await stat(join(place.to, 'a/flow.py'))).mtimeMs, 1_600_000_000_000)
})

test('an absolute link that stays in the tree is made relative, so that the copy stands alone', async () => {
  await using place = await makePlace({ 'data/x': '1' })
  await writeTree(place.base, { 'deep/link': { link: join(place.base, 'data') } })
  assert.deepEqual(await place.fetch(), { 'data/x': '1', 'deep/link': { link: '../data' } })
})

for (const [what, link] of [
  ['an absolute path', '/etc'],
  ['its parents', '../../to'],
  ['something that does not exist', '/nowhere/at/all'],
] as const) {
  test(`a link that leaves the tree by ${what} is refused by name`, async () => {
    await using place = await makePlace({ 'sub/ok': 'x', 'sub/evil': { link } })
    await assert.rejects(place.fetch(), {
      name: 'StorageError',
      blame: 'run',
      message: /Link "sub\/evil".*outside of the tree/,
    })
  })
}

test('a folder below the base path arrives without its siblings and without its own name', async () => {
  await using place = await makePlace({ 'flows/a.py': 'a', 'flows-old/b.py': 'b', 'flows2/c.py': 'c' })
  assert.deepEqual(await place.fetch('flows'), { 'a.py': 'a' })
})

test('an absolute path inside of the base path is taken, and what looks like a pattern is a name', async () => {
  await using place = await makePlace({ 'gl[1]/a': 'right', 'gl1/a': 'wrong' })
  assert.deepEqual(await place.fetch(join(place.base, 'gl[1]')), { a: 'right' })
})

for (const from of ['..', 'a/../../other', '/etc', '~', '../base-of-somebody-else']) {
  test(`a path that leads out of the base path is refused: ${from}`, async () => {
    await using place = await makePlace({ 'a/b': 'x' })
    await assert.rejects(place.fetch(from), { name: 'StorageError', message: /leads out of the base path/ })
  })
}

test('a path that leaves the base path through a link is refused', async () => {
  await using place = await makePlace({ out: { link: '/etc' } })
  await assert.rejects(place.fetch('out'), { name: 'StorageError', message: /leads out of the base path/ })
})

test('~ in the base path is the home of the user', async () => {
  await using place = await makePlace({ a: 'x' })
  assert.deepEqual(await place.fetch(undefined, { basepath: '~/base' }), { a: 'x' })
})

test('.prefectignore leaves out what it names, as Prefect reads it', async () => {
  const ignore = '# comment\n*.log\n__pycache__\nbuild/\n!build/keep.txt\n/top.txt\ndocs/**/draft.md\n'
  await using place = await makePlace({
    '.prefectignore': ignore,
    'a.py': 'x',
    'a.log': 'no',
    'sub/top.txt': 'x',
    'top.txt': 'no',
    'sub/__pycache__/a.pyc': 'no',
    'build/a': 'no',
    'build/keep.txt': 'x',
    'other/build/a': 'no',
    'docs/one/two/draft.md': 'no',
    'docs/final.md': 'x',
  })
  assert.deepEqual(await place.fetch(), {
    '.prefectignore': ignore,
    'a.py': 'x',
    'build/keep.txt': 'x',
    'docs/final.md': 'x',
    'docs/one/two': null,
    'other/build': null,
    'sub/top.txt': 'x',
  })
})

test('.prefectignore of the base path says nothing about a folder below it', async () => {
  await using place = await makePlace({ '.prefectignore': '*.py\n', 'sub/a.py': 'x' })
  assert.deepEqual(await place.fetch('sub'), { 'a.py': 'x' })
})

test('an ignored link or socket does no harm', async () => {
  await using place = await makePlace({ '.prefectignore': 'evil\npipe\n', evil: { link: '/etc' } })
  execFileSync('mkfifo', [join(place.base, 'pipe')])
  assert.deepEqual(await place.fetch(), { '.prefectignore': 'evil\npipe\n' })
})

for (const name of ['pipe', '.prefectignore']) {
  test(`a named pipe in the tree is refused by name instead of being read for ever: ${name}`, async () => {
    await using place = await makePlace({})
    execFileSync('mkfifo', [join(place.base, name)])
    await assert.rejects(place.fetch(), {
      message: new RegExp(`base.*"${name}" is neither a file, a folder nor a link`),
    })
  })
}

test('a name that is not UTF-8 is refused by what can be shown of it, one that only looks so is not', async () => {
  const tree: Tree = { 'd\ufffd': null, 'f\ufffd.py': 'f', l: { link: 'f\ufffd.py' } }
  await using sound = await makePlace(tree)
  assert.deepEqual(await sound.fetch(), tree)
  await using place = await makePlace(tree)
  const other = Buffer.concat([Buffer.from(`${place.base}/d`), Buffer.of(0xff)])
  await mkdir(other)
  await writeFile(Buffer.concat([other, Buffer.from('/a.py')]), 'a')
  await assert.rejects(place.fetch(), { message: /The name "d\ufffd" has bytes in it that are not UTF-8/ })
})

test('a link to a name that is not UTF-8 is refused', async () => {
  await using place = await makePlace({})
  await symlink(Buffer.of(0x6e, 0xff), join(place.base, 'm'))
  await assert.rejects(place.fetch(), { message: /Link "m" points to "n\ufffd", which is not UTF-8/ })
})

test('a missing folder is named', async () => {
  await using place = await makePlace({})
  await assert.rejects(place.fetch('nope'), { name: 'StorageError', message: /base\/nope" cannot be read/ })
})

test('a file in place of a folder is named', async () => {
  await using place = await makePlace({ 'flow.py': 'x' })
  await assert.rejects(place.fetch('flow.py'), { name: 'StorageError', message: /flow\.py" is not a folder/ })
})

test('limits on files and bytes end the copy with a sentence', async () => {
  await using place = await makePlace({ a: '12345', b: '12345' })
  await assert.rejects(place.fetch(undefined, { maxFiles: 1 }), { message: /more than the limit of 1 files/ })
  await using other = await makePlace({ a: '12345', b: '12345' })
  await assert.rejects(other.fetch(undefined, { maxBytes: 9 }), { message: /more than the limit of 9 bytes/ })
})

test('a base path that holds the workspace itself is refused instead of being copied into itself', async () => {
  await using place = await makePlace({ a: 'x' })
  await assert.rejects(place.fetch(undefined, { basepath: place.directory }), {
    message: /contains this agent's own work folder/,
  })
})

test('a full disk is blamed on this host', needs('root'), async () => {
  await using place = await makePlace({ big: 'x'.repeat(200_000) })
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', place.to])
  try {
    await assert.rejects(place.fetch(), { name: 'StorageError', blame: 'host', message: /ENOSPC/ })
  } finally {
    execFileSync('umount', [place.to])
  }
})

test('aborting ends a long copy at once', async () => {
  await using place = await makePlace({})
  for (let at = 0; at < 500; at++) await writeFile(join(place.base, `f${at}`), 'x')
  const storage = await openStorage({ slug: 'local-file-system', data: { basepath: place.base } }, makeContext())
  const controller = new AbortController()
  const copying = storage.getDirectory(undefined, place.to, controller.signal)
  controller.abort(new Error('stop it'))
  await assert.rejects(copying, /stop it/)
})

test('a storage block of an unknown type is named, and so is a field that is wrong, without its value', async () => {
  await assert.rejects(
    openStorage({ slug: 'carrier-pigeon', data: {} }, makeContext()),
    (error: unknown) => error instanceof StorageError && error.message.includes('"carrier-pigeon"'),
  )
  await assert.rejects(openStorage({ slug: 'local-file-system', data: { basepath: 4711 } }, makeContext()), {
    name: 'StorageError',
    message: 'Storage block of type "local-file-system": field "basepath" is not what was expected (string)',
  })
})

/** A block over the place's base folder, and a folder to upload. */
async function makeUpload(tree: Tree) {
  const place = await makePlace({})
  const local = join(place.directory, 'local')
  await mkdir(local)
  await writeTree(local, tree)
  const block = { slug: 'local-file-system', data: { basepath: place.base } }
  return { ...place, local, storage: await openWritableStorage(block, makeContext({ home: place.directory })) }
}

test('an upload to a local folder keeps modes, links and empty folders, over what is there', async () => {
  const tree: Tree = {
    'flow.py': 'new',
    'bin/run.sh': { mode: 0o755, text: '#!/bin/sh\n' },
    'bin/current': { link: 'run.sh' },
    empty: null,
  }
  await using place = await makeUpload(tree)
  await writeTree(place.base, { 'apps/flow.py': 'old', 'apps/kept.py': 'kept', 'apps/bin/current': { link: 'gone' } })
  assert.equal(await place.storage.putDirectory(place.local, 'apps', undefined, signal), 3)
  assert.deepEqual(await readTree(join(place.base, 'apps')), { ...tree, 'kept.py': 'kept' })
})

test('a link that lies where an upload goes is replaced or refused, never written through', async () => {
  await using place = await makeUpload({ 'flow.py': 'new', 'lib/a.py': 'a' })
  await writeTree(place.directory, { 'outside/flow.py': 'not ours', 'outside/lib/b.py': 'b' })
  await writeTree(place.base, { 'flow.py': { link: '../outside/flow.py' } })
  await place.storage.writePath('flow.py', Buffer.from('new'), signal)
  assert.deepEqual(await readTree(place.base), { 'flow.py': 'new' })
  await writeTree(place.base, { lib: { link: '../outside/lib' } })
  await assert.rejects(place.storage.putDirectory(place.local, undefined, undefined, signal), {
    name: 'StorageError',
    message: /leads out of the base path/,
  })
  await assert.rejects(place.storage.readPath('lib/b.py', signal), { message: /leads out of the base path/ })
  assert.deepEqual(await readTree(join(place.directory, 'outside')), { 'flow.py': 'not ours', 'lib/b.py': 'b' })
})

test('files of a local folder are read and written by their path, inside of the base path only', async () => {
  await using place = await makeUpload({})
  await place.storage.writePath('results/a.bin', Buffer.from([0, 255]), signal)
  await place.storage.writePath(join(place.base, 'results/b.txt'), Buffer.from('b'), signal)
  assert.deepEqual([...(await place.storage.readPath('results/a.bin', signal))], [0, 255])
  assert.equal(Buffer.from(await place.storage.readPath('results/b.txt', signal)).toString(), 'b')
  await assert.rejects(place.storage.readPath('results', signal), { message: /is not a file/ })
  await assert.rejects(place.storage.readPath('nowhere', signal), { message: /no such file/ })
  for (const path of ['../x', '/etc/x']) {
    await assert.rejects(async () => place.storage.writePath(path, Buffer.from('x'), signal), {
      message: /leads out of the base path/,
    })
  }
})
