import assert from 'node:assert/strict'
import { chmod, mkdir, readdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import * as v from 'valibot'
import { drawProgress } from '../../src/commands/fetch-progress.ts'
import { makeBucket } from '../storage/s3-server.ts'
import { readTree, writeTree } from '../storage/support.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { openServer, runCli } from './support.ts'

const signal = new AbortController().signal
const tree: Record<string, string> = { 'flow.py': 'f', 'lib/a.py': 'a', 'lib/b.py': 'bb' }
const Result = v.object({
  files: v.number(),
  bytes: v.number(),
  requests: v.number(),
  milliseconds: v.number(),
  from_cache: v.boolean(),
  downloaded_files: v.number(),
})

async function makeScene(environment: Readonly<Record<string, string>> = {}) {
  const directory = await makeDirectory()
  const base = join(directory.path, 'base')
  await mkdir(base)
  await writeTree(base, tree)
  const env = {
    RIGEL_CACHE_DIR: join(directory.path, 'cache'),
    RIGEL_STATE_DIR: join(directory.path, 'state'),
    PREFECT_HOME: join(directory.path, 'prefect'),
    ...environment,
  }
  const write = async (name: string, value: unknown) => {
    await writeFile(join(directory.path, name), JSON.stringify(value))
    return name
  }
  return {
    path: directory.path,
    base,
    write,
    to: join(directory.path, 'to'),
    rigel: (...args: string[]) => runCli(args, { env, cwd: directory.path }),
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  }
}

test('a block in a file is fetched without a server', async () => {
  await using scene = await makeScene()
  const file = await scene.write('block.json', {
    block_type_slug: 'local-file-system',
    data: { basepath: scene.base },
  })
  const { code, stdout, stderr } = await scene.rigel('fetch', 'to', '--block-file', file)
  assert.equal(code, 0, stderr)
  assert.match(stdout, /^fetched 3 files \(4 B\) into .*\/to in \d+ ms/)
  assert.deepEqual(await readTree(scene.to), tree)
  const inner = await scene.rigel('fetch', 'inner', '--block-file', file, '--path', 'lib', '--output', 'json')
  assert.equal(v.parse(Result, JSON.parse(inner.stdout)).files, 2)
  assert.deepEqual(await readTree(join(scene.path, 'inner')), { 'a.py': 'a', 'b.py': 'bb' })
})

test('what has been fetched once comes from the cache, and the command says so', needs('s3'), async () => {
  await using bucket = await makeBucket('s3')
  for (const [path, text] of Object.entries(tree)) await bucket.put(`flows/${path}`, text)
  await using scene = await makeScene({ AWS_ENDPOINT_URL: bucket.endpoint })
  const file = await scene.write('block.json', {
    block_type_slug: 's3',
    data: {
      bucket_path: `${bucket.bucket}/flows`,
      aws_access_key_id: bucket.accessKeyId,
      aws_secret_access_key: bucket.secretAccessKey,
    },
  })
  const results = []
  for (const to of ['one', 'two']) {
    const { code, stdout, stderr } = await scene.rigel('fetch', to, '--block-file', file, '--output', 'json')
    assert.equal(code, 0, stderr)
    results.push(v.parse(Result, JSON.parse(stdout)))
    assert.deepEqual(await readTree(join(scene.path, to)), tree)
  }
  const shown = results.map(({ files, bytes, requests, from_cache, downloaded_files }) => [
    files,
    bytes,
    requests,
    from_cache,
    downloaded_files,
  ])
  assert.deepEqual(shown, [
    [3, 4, 4, false, 3],
    [3, 4, 1, true, 0],
  ])

  const listed = await scene.rigel('cache', 'ls')
  assert.match(listed.stdout, new RegExp(`s3://${bucket.bucket}/flows`))
  assert.equal((await scene.rigel('cache', 'verify')).code, 0)
  const trees = join(scene.path, 'cache', 'trees')
  const [id = ''] = await readdir(trees)
  await writeFile(join(trees, id, 'pack'), 'damaged')
  const verified = await scene.rigel('cache', 'verify')
  assert.deepEqual([verified.code, /0 of 1 trees are sound/.test(verified.stdout)], [1, true])
  assert.deepEqual(await readdir(trees), [])
  await scene.rigel('fetch', 'three', '--block-file', file)
  assert.match((await scene.rigel('cache', 'prune')).stdout, /removed 0 trees/)
  assert.match((await scene.rigel('cache', 'prune', '--all')).stdout, /removed 1 trees/)
  assert.deepEqual(await readdir(trees), [])
})

test('a failed fetch leaves nothing, names the place and shows no secret', needs('s3'), async () => {
  await using bucket = await makeBucket('s3')
  await using scene = await makeScene({ AWS_ENDPOINT_URL: bucket.endpoint })
  const file = await scene.write('block.json', {
    block_type_slug: 's3',
    data: { bucket_path: 'not-there', aws_access_key_id: 'x', aws_secret_access_key: 'hush-hush' },
  })
  const { code, stdout, stderr } = await scene.rigel('fetch', 'to', '--block-file', file)
  assert.equal(code, 1)
  assert.match(stderr, /Could not fetch s3:\/\/not-there/)
  assert.doesNotMatch(stdout + stderr, /hush-hush/)
  assert.deepEqual(
    (await readdir(scene.path)).filter(name => /^to$|partial/.test(name)),
    [],
  )
})

test('a folder that holds something is not touched', async () => {
  await using scene = await makeScene()
  await writeTree(scene.path, { 'to/mine.txt': 'mine' })
  const file = await scene.write('block.json', { block_type_slug: 'local-file-system', data: { basepath: scene.base } })
  const { code, stderr } = await scene.rigel('fetch', 'to', '--block-file', file)
  assert.equal(code, 1)
  assert.match(stderr, /is not empty/)
  assert.deepEqual(await readTree(scene.to), { 'mine.txt': 'mine' })
})

test('pull steps of a file are done; steps that only an engine can run make it fail', async () => {
  await using scene = await makeScene()
  const clone = { 'prefect.deployments.steps.git_clone': { repository: '{{ $HOME }}/x.git' } }
  const failed = await scene.rigel('fetch', 'to', '--steps-file', await scene.write('steps.json', [clone]))
  assert.equal(failed.code, 1)
  assert.match(failed.stderr, /Pull step 1 \(git_clone\).*\/nonexistent\/x\.git/)
  const script = { 'prefect.deployments.steps.run_shell_script': { script: 'true' } }
  const left = await scene.rigel('fetch', 'to', '--steps-file', await scene.write('steps.json', [script]))
  assert.equal(left.code, 1)
  assert.match(left.stderr, /1 of the pull steps can only be run by Prefect's engine/)
})

test('code of a deployment and of a block of a server', async () => {
  await using server = await openServer('embedded')
  await using scene = await makeScene({ PREFECT_API_URL: server.apiUrl })
  await scene.rigel('block', 'create', 'local-file-system', '--name', 'code', '--field', `basepath=${scene.base}`)
  const block = await scene.rigel('fetch', 'from-block', '--block', 'local-file-system/code')
  assert.equal(block.code, 0, block.stderr)
  assert.deepEqual(await readTree(join(scene.path, 'from-block')), tree)
  const flow = await server.client.createFlow('etl', signal)
  const step = { block_type_slug: 'local-file-system', block_document_name: 'code' }
  for (const [name, place] of [
    ['path', { path: join(scene.base, 'lib') }],
    ['steps', { pull_steps: [{ 'prefect.deployments.steps.pull_with_block': step }] }],
  ] as const) {
    await server.client.createDeployment({ name, flow_id: flow.id, entrypoint: 'flow.py:main', ...place }, signal)
    const fetched = await scene.rigel('fetch', name, '--deployment', `etl/${name}`)
    assert.equal(fetched.code, 0, fetched.stderr)
  }
  assert.deepEqual(await readTree(join(scene.path, 'path')), { 'a.py': 'a', 'b.py': 'bb' })
  assert.deepEqual(await readdir(join(scene.path, 'steps')), ['local-file-system-code'])
  const missing = await scene.rigel('fetch', 'x', '--block', 'local-file-system/none')
  assert.deepEqual([missing.code, /no block "local-file-system\/none"/.test(missing.stderr)], [1, true])
})

test('one source must be named', async () => {
  await using scene = await makeScene()
  for (const args of [[], ['--block', 'a/b', '--deployment', 'c/d'], ['--steps-file', 'x', '--path', 'y']]) {
    assert.equal((await scene.rigel('fetch', 'to', ...args)).code, 2, args.join(' '))
  }
})

test('progress shows a bar once the number of files is known', () => {
  const meter = { files: 5, bytes: 3 * 1024 * 1024, requests: 7, fromCache: false, expected: 0 }
  assert.equal(drawProgress(meter, 79), '5 files, 3.0 MiB, 7 requests')
  const counted = { ...meter, expected: 10 }
  assert.equal(drawProgress(counted, 79), '[============            ] 5/10 files, 3.0 MiB, 7 requests')
  assert.equal(drawProgress(counted, 44), '[=====     ] 5/10 files, 3.0 MiB, 7 requests')
  assert.equal(drawProgress(counted, 40), '5/10 files, 3.0 MiB, 7 requests')
  assert.equal(drawProgress(counted, 16), '5/10 files, 3.0 ')
})

test('what is fetched with --share can be read, and run, by every user', async () => {
  await using scene = await makeScene()
  await chmod(join(scene.base, 'lib'), 0o700)
  await chmod(join(scene.base, 'lib/a.py'), 0o600)
  await chmod(join(scene.base, 'lib/b.py'), 0o700)
  const file = await scene.write('block.json', {
    block_type_slug: 'local-file-system',
    data: { basepath: scene.base },
  })
  const { code, stderr } = await scene.rigel('fetch', 'to', '--block-file', file, '--share')
  assert.equal(code, 0, stderr)
  const modeOf = async (path: string) => (await stat(join(scene.to, path))).mode & 0o777
  const modes = await Promise.all(['.', 'lib', 'lib/a.py', 'lib/b.py'].map(modeOf))
  assert.deepEqual(modes, [0o755, 0o755, 0o644, 0o755])
})
