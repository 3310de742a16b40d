import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { storageOf } from '../../src/storage/fetch-source.ts'
import { type GitSettings, openGit } from '../../src/storage/git.ts'
import { readGitAddress } from '../../src/storage/git-login.ts'
import { openStorage, type StorageBlock } from '../../src/storage/registry.ts'
import { makeDirectory } from '../support/directory.ts'
import { addressOf, listen } from '../support/listen.ts'
import { needs } from '../support/requires.ts'
import { run } from '../support/run.ts'
import { storageServer } from '../support/storage-servers.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { type Contract, type ContractPlace, testContract } from './contract.ts'
import { type GitRepository, gitEnvironment, makeRepository } from './git-server.ts'
import { makeContext, readTree } from './support.ts'

const signal = new AbortController().signal

interface GitPlace {
  readonly url: string
  readonly token: string
  readonly password: string
}

async function openPlace(blockOf: (place: GitPlace) => StorageBlock): Promise<ContractPlace> {
  const server = storageServer('git')
  const { token = '', password = '', tls_port: port = '' } = server
  const repository = await makeRepository('private')
  const files: Record<string, string> = {}
  return {
    address: { host: '127.0.0.1', port: Number(port) },
    environment: gitEnvironment(),
    block(at, flaw) {
      const name = flaw === 'missing bucket' ? 'private/is-not-there.git' : repository.name
      const host = flaw === 'no server' ? '127.0.0.1:9' : at ? `${at.host}:${at.port}` : `127.0.0.1:${port}`
      const wrong = flaw === 'wrong secret' ? 'x' : ''
      return blockOf({ url: `https://${host}/${name}`, token: token + wrong, password: password + wrong })
    },
    async put(path, bytes) {
      files[path] = String(bytes)
      await repository.commit(files)
    },
    async [Symbol.asyncDispose]() {
      // The server's folder goes with it.
    },
  }
}

const contract: Omit<Contract, 'name' | 'open'> = {
  requirement: 'git',
  secret: () => storageServer('git').token ?? '',
  checksCredentials: true,
  hasBucket: true,
  takesHostileNames: true,
  // The server's own git stumbles over an empty name.
  impossibleNames: ['a//b.py'],
  resumes: false,
  reuses: false,
  keepsFolder: true,
}

testContract({
  ...contract,
  name: 'github with a token',
  open: () =>
    openPlace(({ url, token }) => ({
      slug: 'github',
      data: { repository: url, access_token: token, include_git_objects: false },
    })),
})

const onHost: readonly { name: string; blockOf: (place: GitPlace) => StorageBlock }[] = [
  {
    name: 'github with user:token',
    blockOf: ({ url, token }) => ({ slug: 'github', data: { repository: url, access_token: `rigel-bot:${token}` } }),
  },
  {
    name: 'github-repository',
    blockOf: ({ url, token }) => ({ slug: 'github-repository', data: { repository_url: url, credentials: { token } } }),
  },
  {
    name: 'gitlab-repository',
    blockOf: ({ url, token }) => ({ slug: 'gitlab-repository', data: { repository: url, credentials: { token } } }),
  },
  {
    name: 'gitlab-repository with a deploy token',
    blockOf: ({ url, token }) => ({
      slug: 'gitlab-repository',
      data: { repository: url, credentials: { token: `rigel-bot:${token}` } },
    }),
  },
  {
    name: 'bitbucket-repository with a token',
    blockOf: ({ url, token }) => ({
      slug: 'bitbucket-repository',
      data: { repository: url, bitbucket_credentials: { token } },
    }),
  },
  {
    name: 'bitbucket-repository with user and password',
    blockOf: ({ url, password }) => ({
      slug: 'bitbucket-repository',
      data: { repository: url, bitbucket_credentials: { username: 'rigel', password } },
    }),
  },
]

async function fetchBlock(block: StorageBlock, environment = gitEnvironment(), from?: string) {
  await using directory = await makeDirectory()
  const to = join(directory.path, 'to')
  await mkdir(to)
  const storage = await openStorage(block, makeContext({ environment }))
  await storage.getDirectory(from, to, signal)
  return await readTree(to)
}

function withoutGit(tree: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(tree).filter(([path]) => !path.startsWith('.git/')))
}

for (const { name, blockOf } of onHost) {
  test(`${name} logs in as its host wants it, and the token stays out of .git`, needs('git'), async () => {
    const place = await openPlace(blockOf)
    await place.put('flow.py', 'x = 1\n')
    const tree = await fetchBlock(place.block())
    assert.deepEqual(withoutGit(tree), { 'flow.py': 'x = 1\n' })
    const kept = Object.entries(tree).filter(([path]) => path.startsWith('.git/'))
    assert.ok(kept.some(([path]) => path === '.git/config'))
    for (const [path, text] of kept) assert.ok(!JSON.stringify(text).includes(contract.secret?.() ?? ''), path)
  })
}

async function fetchGit(
  repository: GitRepository,
  changes: Partial<GitSettings> & { from?: string },
  environment = gitEnvironment(),
) {
  const { from, ...rest } = changes
  const login = { kind: 'password', username: 'rigel', password: storageServer('git').password ?? '' }
  const address = readGitAddress(`${storageServer('git').url_tls}${repository.name}`, login)
  const settings = { address, reference: undefined, base: '', keepsFolder: false, keepsGit: false, ...rest }
  await using directory = await makeDirectory()
  const to = join(directory.path, 'to')
  await mkdir(to)
  const context = makeContext({ environment })
  await storageOf(openGit(settings, context), context).getDirectory(from, to, signal)
  return await readTree(to)
}

test(
  'a branch, a tag, an annotated tag, a commit and its beginning each give their own tree',
  needs('git'),
  async () => {
    const repository = await makeRepository('private')
    const first = await repository.commit({ a: '1' })
    await repository.git('tag', 'light', first)
    await repository.git('-c', 'user.name=t', '-c', 'user.email=t@t', 'tag', '-a', '-m', 'x', 'v1', first)
    await repository.commit({ a: '2' })
    await repository.commit({ a: 'side' }, 'feature/side')
    assert.deepEqual(await fetchGit(repository, {}), { a: '2' })
    assert.deepEqual(await fetchGit(repository, { reference: 'feature/side' }), { a: 'side' })
    assert.deepEqual(await fetchGit(repository, { reference: 'light' }), { a: '1' })
    assert.deepEqual(await fetchGit(repository, { reference: 'v1' }), { a: '1' })
    assert.deepEqual(await fetchGit(repository, { reference: 'refs/heads/main' }), { a: '2' })
    assert.deepEqual(await fetchGit(repository, { reference: first }), { a: '1' })
    assert.deepEqual(await fetchGit(repository, { reference: first.slice(0, 9) }), { a: '1' })
    for (const reference of ['no-such', 'abcdef12', '0'.repeat(40)]) {
      await assert.rejects(fetchGit(repository, { reference }), {
        name: 'StorageError',
        message: new RegExp(reference),
      })
    }
    for (const reference of ['--upload-pack=touch x', 'a b', 'x..y', 'a*']) {
      await assert.rejects(fetchGit(repository, { reference }), { message: /cannot be the name of a branch/ })
    }
  },
)

test('modes and links arrive, a link that leaves the tree is refused', needs('git'), async () => {
  const repository = await makeRepository('private')
  const run = { mode: '100755', text: '#!/bin/sh\n' } as const
  await repository.commit({ 'run.sh': run, 'pkg/link': { mode: '120000', text: '../run.sh' } })
  assert.deepEqual(await fetchGit(repository, {}), {
    'run.sh': { mode: 0o755, text: '#!/bin/sh\n' },
    'pkg/link': { link: '../run.sh' },
  })
  await repository.commit({ 'flow.py': 'x', etc: { mode: '120000', text: '/etc' } })
  await assert.rejects(fetchGit(repository, {}), { name: 'StorageError', message: /"etc" points to "\/etc", outside/ })
})

test(
  'submodules come when they are asked for, with the same login; otherwise their folder is empty',
  needs('git'),
  async () => {
    const inner = await makeRepository('private')
    const commit = await inner.commit({ 'inner.py': 'i' })
    const outer = await makeRepository('private')
    const url = `${storageServer('git').url_tls}${inner.name}`
    await outer.commit({
      'flow.py': 'x',
      'sub/.keep': '',
      'sub/module': { mode: '160000', text: commit },
      '.gitmodules': `[submodule "m"]\n\tpath = sub/module\n\turl = ${url}\n`,
    })
    const own = await fetchGit(outer, {})
    assert.equal(own['sub/module'], null)
    const all = await fetchGit(outer, { submodules: true })
    assert.equal(all['sub/module/inner.py'], 'i')
    assert.deepEqual(await fetchGit(outer, { submodules: true, from: 'sub/module' }), { 'inner.py': 'i' })
  },
)

test('of directories only these come, and the files above them', needs('git'), async () => {
  const repository = await makeRepository('private')
  await repository.commit({ 'top.py': 't', 'a/x.py': 'a', 'b/x.py': 'b', 'c/d/x.py': 'd' })
  assert.deepEqual(await fetchGit(repository, { directories: ['a', 'c/d'] }), {
    'top.py': 't',
    'a/x.py': 'a',
    'c/d/x.py': 'd',
  })
})

test('over ssh it is the key of this machine', needs('git', 'sftp'), async () => {
  const { host, port, username, private_key_file: key, known_hosts_file: known } = storageServer('sftp')
  const repository = await makeRepository('ssh')
  await repository.commit({ 'flow.py': 'over ssh' })
  const url = `ssh://${username}@${host}:${port}${repository.path}`
  const ssh = `ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o UserKnownHostsFile=${known}`
  const block = { slug: 'github', data: { repository: url, include_git_objects: false } }
  const environment = { ...gitEnvironment(), GIT_SSH_COMMAND: `${ssh} -i ${key}` }
  assert.deepEqual(await fetchBlock(block, environment), { 'flow.py': 'over ssh' })
  await assert.rejects(fetchBlock(block, { ...environment, GIT_SSH_COMMAND: `${ssh} -i /dev/null` }), {
    name: 'StorageError',
    message: /Permission denied/,
  })
  const missing = { slug: 'github', data: { repository: `${url}-gone` } }
  await assert.rejects(fetchBlock(missing, environment), {
    name: 'StorageError',
    message: /does not appear to be a git repository/,
  })
})

test('the token is in no command line, and an unchanged repository costs one ls-remote', needs('git'), async () => {
  await using directory = await makeDirectory()
  const log = join(directory.path, 'log')
  const real = (await import('node:child_process')).execFileSync('which', ['git'], { encoding: 'utf8' }).trim()
  await writeFile(join(directory.path, 'git'), `#!/bin/sh\necho "$*" >>'${log}'\nexec '${real}' "$@"\n`)
  await chmod(join(directory.path, 'git'), 0o755)
  const place = await openPlace(({ url, token }) => ({
    slug: 'github',
    data: { repository: url.replace('://', `://x-access-token:${token}@`), include_git_objects: false },
  }))
  await place.put('flow.py', 'x')
  const environment = { ...gitEnvironment(), PATH: `${directory.path}:${process.env.PATH}` }
  const context = makeContext({ environment, cacheDir: join(directory.path, 'cache') })
  const storage = await openStorage(place.block(), context)
  for (const name of ['one', 'two']) {
    await mkdir(join(directory.path, name))
    await storage.getDirectory(undefined, join(directory.path, name), signal)
  }
  const commands = (await readFile(log, 'utf8')).trim().split('\n')
  assert.equal(commands.filter(line => line.startsWith('ls-remote')).length, 2)
  assert.match(commands.at(-1) ?? '', /^ls-remote/)
  assert.ok(!commands.join('\n').includes(storageServer('git').token ?? ''))
  assert.deepEqual(await readTree(join(directory.path, 'two')), { 'flow.py': 'x' })
})

test('a git that is too old to be given a login is named where the login is missed', needs('git'), async () => {
  await using directory = await makeDirectory()
  const real = (await run('which', ['git'])).stdout.trim()
  const old = (version: string) =>
    `#!/bin/sh\nunset GIT_CONFIG_COUNT\n[ "$1" != --version ] || { echo 'git version ${version}'; exit; }\nexec '${real}' "$@"\n`
  const place = await openPlace(({ url, token }) => ({
    slug: 'github',
    data: { repository: url, access_token: token },
  }))
  await place.put('flow.py', 'x')
  const environment = { ...gitEnvironment(), PATH: `${directory.path}:${process.env.PATH}` }
  const program = join(directory.path, 'git')
  await writeFile(program, old('2.30.2'), { mode: 0o755 })
  await assert.rejects(fetchBlock(place.block(), environment), {
    name: 'StorageError',
    message: /asks for credentials \(401\).*; git 2\.30\.2 is too old, 2\.31 or newer is needed/,
  })
  await writeFile(program, old('2.31.0 (Apple Git-130)'), { mode: 0o755 })
  await assert.rejects(fetchBlock(place.block(), environment), (error: Error) => {
    assert.match(error.message, /asks for credentials \(401\)/)
    assert.doesNotMatch(error.message, /too old/)
    return true
  })
})

test('a clone whose connections are cut is begun again', needs('git'), async () => {
  const place = await openPlace(({ url, token }) => ({
    slug: 'github',
    data: { repository: url, access_token: token, include_git_objects: false },
  }))
  await place.put('noise.txt', randomBytes(100_000).toString('hex'))
  let cuts = 0
  await using proxy = await startTcpProxy({
    ...place.address,
    // In the middle of the pack, twice; what comes before it is shorter.
    cut: ({ bytesBefore, length }) => (bytesBefore + length > 50_000 && cuts++ < 2 ? 10 : undefined),
  })
  const tree = await fetchBlock(place.block({ host: '127.0.0.1', port: proxy.port }))
  assert.equal(cuts > 2, true)
  assert.deepEqual(Object.keys(tree), ['noise.txt'])
})

test('credentials do not follow to a host that the server redirects to', needs('git'), async () => {
  const repository = await makeRepository('private')
  await repository.commit({ 'flow.py': 'x' })
  const seen: (string | undefined)[] = []
  const thief = createServer((request, response) => {
    seen.push(request.headers.authorization)
    response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
  })
  const server = createServer((request, response) => {
    response.writeHead(302, { location: `http://127.0.0.1:${addressOf(thief).port}${request.url}` }).end()
  })
  await Promise.all([listen(thief), listen(server)])
  try {
    const login = { kind: 'token', username: 'u', password: 'secret-of-the-first-host' }
    const address = readGitAddress(`http://127.0.0.1:${addressOf(server).port}/x.git`, login)
    await assert.rejects(fetchGit(repository, { address }), { name: 'StorageError', message: /401/ })
    assert.ok(seen.length > 0)
    assert.deepEqual(seen.filter(Boolean), [])
  } finally {
    for (const one of [thief, server]) {
      one.closeAllConnections()
      one.close()
    }
  }
})

test('fsspec: github:// is the repository of that name at github.com', needs('git'), async () => {
  const repository = await makeRepository('public')
  await repository.commit({ 'flows/a.py': 'a', 'b.py': 'b' }, 'dev')
  const environment = {
    ...gitEnvironment(),
    GIT_CONFIG_COUNT: '1',
    GIT_CONFIG_KEY_0: `url.${storageServer('git').url_tls}${repository.name}.insteadOf`,
    GIT_CONFIG_VALUE_0: 'https://github.com/org/repo.git',
  }
  const inUrl = { basepath: 'github://org:repo@dev/flows', settings: {} }
  const inSettings = { basepath: 'github://flows', settings: { org: 'org', repo: 'repo', sha: 'dev' } }
  for (const data of [inUrl, inSettings]) {
    assert.deepEqual(await fetchBlock({ slug: 'remote-file-system', data }, environment), { 'a.py': 'a' })
  }
})

function fetchUrl(basepath: string, settings = {}) {
  return fetchBlock({ slug: 'remote-file-system', data: { basepath, settings } })
}

test('fsspec: git:// is a repository of this machine', needs('git'), async () => {
  const repository = await makeRepository('public')
  await repository.commit({ 'flows/a.py': 'a', 'b.py': 'b' }, 'dev')
  assert.deepEqual(await fetchUrl(`git://${repository.path}:dev@flows`), { 'a.py': 'a' })
  assert.deepEqual(await fetchUrl('git://flows', { path: repository.path, ref: 'dev' }), { 'a.py': 'a' })
})

for (const [data, message] of [
  [{ repository: 'http://host/x.git', access_token: 't' }, /Access token of the block: it can only be used .* https/],
  [{ repository: 'git@host:x.git', access_token: 't' }, /Access token of the block: it can only be used .* https/],
  [{ repository: 'ext::sh -c touch% x' }, /not one that git takes/],
  [{ repository: '--upload-pack=x' }, /not one that git takes/],
  [{ repository: 'https://host/x.git', access_token: 'a\nb' }, /line break/],
] as const) {
  test(`github refuses ${JSON.stringify(data)}`, async () => {
    await assert.rejects(fetchBlock({ slug: 'github', data }), { name: 'StorageError', message })
  })
}
