// Pull steps of deployments as the agent does them: with real git repositories on disk here, and with real buckets below.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { beginsWithFetch, pullSteps, type StepScene } from '../../src/storage/pull-steps.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'
import { connectionString, openAzurePlace } from './azure-server.ts'
import { openGcsPlace } from './gcs-server.ts'
import { gitEnvironment, makeRepository as makeGitRepository } from './git-server.ts'
import { makeBucket } from './s3-server.ts'
import { makeContext, readTree, type Tree, writeTree } from './support.ts'

const signal = new AbortController().signal
const own = 'prefect.deployments.steps'

async function makeScene(blocks: Readonly<Record<string, Record<string, unknown>>> = {}) {
  const directory = await makeDirectory()
  const to = join(directory.path, 'run', 'to')
  await mkdir(to, { recursive: true, mode: 0o700 })
  const scene: StepScene = {
    isHere: true,
    environment: { PATH: process.env.PATH, NAME: 'one' },
    readers: {
      block: async (slug, name) => blocks[`${slug}/${name}`],
      blockById: async () => undefined,
      variable: async name => (name === 'branch' ? 'next/one' : undefined),
    },
  }
  return {
    path: directory.path,
    to,
    /** Runs the steps, for a run on this machine unless said otherwise. */
    pull: async (
      steps: readonly unknown[],
      changes: Partial<StepScene> = {},
      environment: Readonly<Record<string, string>> = {},
    ) => {
      const context = makeContext({
        environment: { PATH: process.env.PATH, ...environment },
        home: directory.path,
      })
      const pulled = await pullSteps(steps, to, { ...scene, ...changes }, context, signal)
      return { ...pulled, tree: await readTree(to) }
    },
    /** A repository with a branch `next/one`. */
    repository: async (name: string, tree: Tree) => {
      const path = join(directory.path, name)
      await mkdir(path)
      await writeTree(path, tree)
      const identity = ['-c', 'user.name=t', '-c', 'user.email=t@example.org']
      const git = (...words: string[]) => execFileSync('git', [...identity, ...words], { cwd: path, stdio: 'ignore' })
      git('init', '-b', 'main')
      git('add', '.')
      git('commit', '-m', 'one')
      git('checkout', '-b', 'next/one')
      await writeTree(path, { 'next.py': 'n' })
      git('add', '.')
      git('commit', '-m', 'two')
      git('checkout', 'main')
      return path
    },
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  }
}

const withoutGit = (tree: Record<string, unknown>) =>
  Object.fromEntries(Object.entries(tree).filter(([path]) => !path.includes('.git/')))

test('git_clone makes the folder that Prefect makes, and says where the code is', async () => {
  await using scene = await makeScene()
  const repository = await scene.repository('flows.git', { 'flow.py': 'f' })
  const { tree, ...pulled } = await scene.pull([{ [`${own}.git_clone`]: { id: 'clone', repository, requires: 'x' } }])
  assert.deepEqual(withoutGit(tree), { 'flows/flow.py': 'f' })
  assert.deepEqual(pulled, {
    taken: 1,
    left: 0,
    directory: 'flows',
    outputs: [{ id: 'clone', output: { directory: 'flows' } }],
  })
})

test('git_clone of a branch that a variable names', async () => {
  await using scene = await makeScene()
  const repository = await scene.repository('flows', { 'flow.py': 'f' })
  const branch = '{{ prefect.variables.branch }}'
  const { tree, directory } = await scene.pull([{ [`${own}.pull.git_clone`]: { repository, branch } }])
  assert.equal(directory, 'flows-next-one')
  assert.deepEqual(withoutGit(tree), { 'flows-next-one/flow.py': 'f', 'flows-next-one/next.py': 'n' })
})

test('steps up to the first that does more than fetch are done, the others are left', async () => {
  await using scene = await makeScene()
  const repository = await scene.repository('flows', { 'flow.py': 'f' })
  const clone = (name: string) => ({ [`${own}.git_clone`]: { id: name, repository, clone_directory_name: name } })
  const script = { [`${own}.run_shell_script`]: { script: 'true' } }
  const { tree, ...pulled } = await scene.pull([clone('a'), {}, null, clone('b'), script, clone('c'), null])
  assert.deepEqual(withoutGit(tree), { 'a/flow.py': 'f', 'b/flow.py': 'f' })
  assert.deepEqual(
    { taken: pulled.taken, left: pulled.left, directory: pulled.directory },
    { taken: 4, left: 2, directory: 'b' },
  )
})

test('outputs of earlier steps are filled in', async () => {
  await using scene = await makeScene()
  const repository = await scene.repository('flows', { 'flow.py': 'f' })
  const { tree } = await scene.pull([
    { [`${own}.git_clone`]: { id: 'code', repository } },
    { [`${own}.git_clone`]: { repository, clone_directory_name: '{{ code.directory }}/{{ $NAME }}' } },
  ])
  assert.deepEqual(withoutGit(tree), { 'flows/flow.py': 'f', 'flows/one/flow.py': 'f' })
})

test('pull_with_block fetches into a folder of the name of the block', async () => {
  await using directory = await makeDirectory()
  await writeTree(directory.path, { 'flow.py': 'f' })
  await using scene = await makeScene({ 'local-file-system/code': { basepath: directory.path } })
  const step = { [`${own}.pull_with_block`]: { block_type_slug: 'local-file-system', block_document_name: 'code' } }
  const pulled = await scene.pull([step])
  assert.equal(pulled.directory, 'local-file-system-code')
  assert.deepEqual(pulled.tree, { 'local-file-system-code/flow.py': 'f' })
  const elsewhere = await scene.pull([step], { isHere: false })
  assert.deepEqual([elsewhere.taken, elsewhere.outputs], [0, []], 'a path of another machine was fetched from this one')
})

test('a step that needs the environment of a container is left to the engine there', async () => {
  await using scene = await makeScene()
  const repository = await scene.repository('flows', { 'flow.py': 'f' })
  const steps = [{ [`${own}.git_clone`]: { repository, branch: '{{ $BRANCH }}' } }]
  const pulled = await scene.pull(steps, { isHere: false, environment: {} })
  assert.deepEqual([pulled.taken, pulled.left], [0, 1])
  assert.equal((await scene.pull(steps, { isHere: false, environment: { BRANCH: 'main' } })).taken, 1)
})

for (const [what, step, message] of [
  ['an unknown input', { repository: '/x', brunch: 'main' }, /Pull step 1 \(git_clone\): Input "brunch" is unknown/],
  ['a missing input', {}, /Pull step 1 \(git_clone\): Input "repository" is missing/],
  ['a block that is not there', { repository: '{{ prefect.blocks.string.none }}' }, /no block "string\/none"/],
  ['a folder outside', { repository: '/x', clone_directory_name: '../x' }, /leads out/],
  ['a repository that is not there', { repository: '/nowhere/x.git' }, /Pull step 1 \(git_clone\).*\/nowhere\/x\.git/],
  ['a token over http', { repository: 'http://h/x', access_token: 'secret-x' }, /it can only be used .* https/],
  ['a password over ftp', { repository: 'ftp://u:secret-x@h/x.git' }, /address .* holds a password/],
  ['a password for ssh', { repository: 'ssh://u:secret-x@h/x.git' }, /address .* holds a password/],
  ['a password with a slash', { repository: 'ssh://u:secret-x/y@h/x.git' }, /address .* is not a URL/],
  ['credentials without a token', { repository: 'https://h/x', credentials: { user: 'secret-x' } }, /neither a token/],
] as const) {
  test(`${what} of git_clone is an error that names the step`, async () => {
    await using scene = await makeScene()
    await assert.rejects(scene.pull([{ [`${own}.git_clone`]: step }]), (error: Error) => {
      assert.equal(error.name, 'StorageError')
      assert.match(error.message, message)
      assert.doesNotMatch(error.message, /secret-x/)
      return true
    })
  })
}

const step = (name: string) => [{ [name]: {} }]

test('which steps the agent begins with', () => {
  for (const name of [
    `${own}.git_clone`,
    'prefect.projects.steps.git_clone_project',
    `${own}.pull.pull_with_block`,
    `${own}.pull_from_remote_storage`,
    'prefect_aws.deployments.steps.pull_from_s3',
    'prefect_gcp.deployments.steps.pull_from_gcs',
    'prefect_azure.deployments.steps.pull_from_azure_blob_storage',
  ]) {
    assert.equal(beginsWithFetch([null, {}, ...step(name)]), true, name)
  }
  for (const name of [`${own}.set_working_directory`, `${own}.run_shell_script`, 'mine.git_clone', 'git_clone']) {
    assert.equal(beginsWithFetch([...step(name), ...step(`${own}.git_clone`)]), false, name)
  }
  assert.equal(beginsWithFetch([{ [`${own}.git_clone`]: {}, other: {} }]), false)
})

test('pull_from_s3 lays its folder over the folder in which steps run', needs('s3'), async () => {
  await using bucket = await makeBucket('s3')
  await bucket.put('flows/flow.py', 's3')
  await bucket.put('flows/lib/a.py', 'a')
  await bucket.put('more/lib/b.py', 'b')
  const credentials = { aws_access_key_id: bucket.accessKeyId, aws_secret_access_key: bucket.secretAccessKey }
  await using scene = await makeScene({ 'aws-credentials/mine': credentials })
  const pull = (folder: string) => ({
    'prefect_aws.deployments.steps.pull_from_s3': {
      bucket: bucket.bucket,
      folder,
      credentials: '{{ prefect.blocks.aws-credentials.mine }}',
      client_parameters: { endpoint_url: bucket.endpoint },
    },
  })
  const pulled = await scene.pull([pull('flows'), pull('more')])
  assert.deepEqual(pulled.tree, { 'flow.py': 's3', 'lib/a.py': 'a', 'lib/b.py': 'b' })
  assert.equal(pulled.directory, '')
  assert.deepEqual(pulled.outputs[1], {
    id: undefined,
    output: { bucket: bucket.bucket, folder: 'more', directory: '.' },
  })
})

test('pull_from_gcs with the credentials of a block', needs('gcs'), async () => {
  // The token's server and the bucket's are told apart by the key; the endpoint only by the environment.
  await using place = await openGcsPlace('guarded', ({ key, bucket, endpoint }) => ({
    slug: 'gcs-bucket',
    data: { key, bucket, endpoint },
  }))
  await place.put('flow.py', 'gcs')
  await place.put('lib/a.py', 'a')
  const { key, bucket, endpoint } = place.block().data
  await using scene = await makeScene({ 'gcp-credentials/mine': { service_account_info: JSON.parse(String(key)) } })
  const credentials = '{{ prefect.blocks.gcp-credentials.mine }}'
  const step = { 'prefect_gcp.deployments.steps.pull_from_gcs': { id: 'code', bucket, folder: 'flows', credentials } }
  const pulled = await scene.pull([step], {}, { STORAGE_EMULATOR_HOST: String(endpoint) })
  assert.deepEqual(pulled.tree, { 'flow.py': 'gcs', 'lib/a.py': 'a' })
  assert.deepEqual(pulled.outputs, [{ id: 'code', output: { bucket, folder: 'flows', directory: '.' } }])
})

test('pull_from_azure_blob_storage with the credentials of a block', needs('azure'), async () => {
  await using place = await openAzurePlace(account => ({
    slug: 'azure-blob-storage-container',
    data: { container: account.container, connection_string: connectionString(account) },
  }))
  await place.put('flow.py', 'azure')
  const { container, connection_string } = place.block().data
  await using scene = await makeScene({ 'azure-blob-storage-credentials/mine': { connection_string } })
  const credentials = '{{ prefect.blocks.azure-blob-storage-credentials.mine }}'
  const name = 'prefect_azure.deployments.steps.pull_from_azure_blob_storage'
  const pulled = await scene.pull([{ [name]: { container, folder: 'flows', credentials } }])
  assert.deepEqual(pulled.tree, { 'flow.py': 'azure' })
  assert.equal(pulled.directory, '')
})

for (const [what, login] of [
  ['an access token', { access_token: '{{ prefect.blocks.secret.token }}' }],
  ['a table of user and token', { credentials: { username: 'rigel', token: '{{ prefect.blocks.secret.password }}' } }],
  ['a block of credentials', { credentials: '{{ prefect.blocks.github-credentials.mine }}' }],
] as const) {
  test(`git_clone of a private repository with ${what}`, needs('git'), async () => {
    const repository = await makeGitRepository('private')
    await repository.commit({ 'flow.py': 'private' })
    const { url_tls: url = '', token = '', password = '' } = storageServer('git')
    const blocks = {
      'secret/token': { value: token },
      'secret/password': { value: password },
      'github-credentials/mine': { token },
    }
    await using scene = await makeScene(blocks)
    const inputs = { repository: `${url}${repository.name}`, clone_directory_name: 'code', ...login }
    const { tree } = await scene.pull([{ [`${own}.git_clone`]: inputs }], {}, gitEnvironment())
    assert.deepEqual(withoutGit(tree), { 'code/flow.py': 'private' })
    for (const secret of [token, password])
      assert.ok(!JSON.stringify(tree).includes(secret), 'it was left in the clone')
  })
}
