// Storage behind a proxy, by `rigel fetch` in a process of its own: what a module has loaded before would hide what is missing.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import { join } from 'node:path'
import test from 'node:test'
import { openWritableStorage } from '../../src/storage/registry.ts'
import { runCli } from '../commands/support.ts'
import { makeDataFolder } from '../storage/data-folder.ts'
import { makeRepository } from '../storage/git-server.ts'
import { makeBucket } from '../storage/s3-server.ts'
import { makeContext, readTree } from '../storage/support.ts'
import { makeAuthority } from '../support/certificates.ts'
import { makeDirectory } from '../support/directory.ts'
import { startForwardProxy } from '../support/forward-proxy.ts'
import { listen } from '../support/listen.ts'
import { needs } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'

interface Plan {
  readonly slug: string
  readonly data: Readonly<Record<string, unknown>>
  readonly flags?: readonly string[]
  readonly env: Readonly<Record<string, string>>
}

/** The code, or what the command says. */
async function fetchTree({ slug, data, flags = [], env }: Plan) {
  await using directory = await makeDirectory()
  await writeFile(join(directory.path, 'block.json'), JSON.stringify({ block_type_slug: slug, data }))
  const to = join(directory.path, 'to')
  const args = ['fetch', to, '--block-file', join(directory.path, 'block.json'), ...flags]
  const home = { RIGEL_CACHE_DIR: join(directory.path, 'cache'), RIGEL_STATE_DIR: join(directory.path, 'state') }
  const { code, stderr } = await runCli(args, { env: { ...home, ...env } })
  return code === 0 ? await readTree(to) : stderr
}

function remote(basepath: string, settings: Readonly<Record<string, unknown>> = {}) {
  return { slug: 'remote-file-system', data: { basepath, settings } }
}

/** A folder of the web server with one file, and the two addresses of it. */
async function openSite() {
  const { url = '', url_tls = '', data = '', ca_file: authority = '' } = storageServer('http')
  const folder = await makeDataFolder(data)
  await folder.put('flow.py', 'f')
  return {
    http: `${url}${folder.name}/flows`,
    https: `${url_tls}${folder.name}/flows`,
    host: new URL(url_tls).host,
    env: { SSL_CERT_FILE: authority },
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

test('https:// goes through the proxy of HTTPS_PROXY, in one tunnel for each connection', needs('http'), async () => {
  await using site = await openSite()
  await using proxy = await startForwardProxy({ credentials: 'me:secret' })
  const env = { ...site.env, HTTPS_PROXY: proxy.url.replace('//', '//me:secret@') }
  assert.deepEqual(await fetchTree({ ...remote(site.https), env }), { 'flow.py': 'f' })
  assert.deepEqual([...new Set(proxy.requests)], [`CONNECT ${site.host}`])
})

test(
  'a tunnel that the proxy refuses for now is asked for again; one that wants other credentials is not',
  needs('http'),
  async () => {
    await using site = await openSite()
    await using busy = await startForwardProxy({ busyTunnels: 2 })
    assert.deepEqual(await fetchTree({ ...remote(site.https), env: { ...site.env, HTTPS_PROXY: busy.url } }), {
      'flow.py': 'f',
    })
    await using closed = await startForwardProxy({ credentials: 'me:secret' })
    const said = await fetchTree({ ...remote(site.https), env: { ...site.env, HTTPS_PROXY: closed.url } })
    assert.match(JSON.stringify(said), /407/)
    assert.equal(closed.requests.length, 1)
  },
)

test('http:// goes through the proxy of HTTP_PROXY, and https:// does not', needs('http'), async () => {
  await using site = await openSite()
  await using proxy = await startForwardProxy()
  const env = { ...site.env, http_proxy: proxy.url }
  assert.deepEqual(await fetchTree({ ...remote(site.http), env }), { 'flow.py': 'f' })
  assert.ok(proxy.requests.includes(`GET ${site.http}/`), proxy.requests.join('\n'))
  const before = proxy.requests.length
  assert.deepEqual(await fetchTree({ ...remote(site.https), env }), { 'flow.py': 'f' })
  assert.equal(proxy.requests.length, before)
})

test('ALL_PROXY is for whatever has none of its own, NO_PROXY for exceptions', needs('http'), async () => {
  await using site = await openSite()
  await using proxy = await startForwardProxy()
  const env = { ...site.env, ALL_PROXY: proxy.url }
  assert.deepEqual(await fetchTree({ ...remote(site.https), env }), { 'flow.py': 'f' })
  const through = proxy.requests.length
  assert.ok(through > 0)
  assert.deepEqual(await fetchTree({ ...remote(site.https), env: { ...env, NO_PROXY: 'localhost' } }), {
    'flow.py': 'f',
  })
  assert.equal(proxy.requests.length, through)
})

test('the proxy may be set by a file or a flag instead of the environment', needs('http', 's3'), async () => {
  await using site = await openSite()
  await using bucket = await makeBucket('s3')
  await bucket.put('flows/flow.py', 's')
  await using proxy = await startForwardProxy()
  await using directory = await makeDirectory()
  const config = join(directory.path, 'rigel.toml')
  await writeFile(config, `[proxy]\nhttps = "${proxy.url}"\n`)
  assert.deepEqual(await fetchTree({ ...remote(site.https), env: { ...site.env, RIGEL_CONFIG: config } }), {
    'flow.py': 'f',
  })
  assert.ok(proxy.requests.includes(`CONNECT ${site.host}`))
  const secret = join(directory.path, 'proxy')
  await writeFile(secret, proxy.url)
  const { endpoint, accessKeyId: key, secretAccessKey } = bucket
  const settings = { key, secret: secretAccessKey, endpoint_url: endpoint }
  const s3 = remote(`s3://${bucket.bucket}/flows`, settings)
  assert.deepEqual(await fetchTree({ ...s3, flags: ['--proxy-http-file', secret], env: {} }), { 'flow.py': 's' })
  assert.ok(proxy.requests.some(line => line.startsWith(`GET ${endpoint}/${bucket.bucket}`)))
})

test('git goes through the same proxy', needs('git'), async () => {
  const repository = await makeRepository('public')
  await repository.commit({ 'flow.py': 'g' })
  await using proxy = await startForwardProxy()
  await using directory = await makeDirectory()
  const config = join(directory.path, 'rigel.toml')
  await writeFile(config, `[proxy]\nall = "${proxy.url}"\n`)
  const { url_tls, ca_file = '' } = storageServer('git')
  const data = { repository: `${url_tls}${repository.name}`, include_git_objects: false }
  const env = { RIGEL_CONFIG: config, GIT_SSL_CAINFO: ca_file }
  assert.deepEqual(await fetchTree({ slug: 'github', data, env }), { 'flow.py': 'g' })
  assert.ok(proxy.requests.length > 0)
})

test("Amazon's credentials of a web identity are asked for through the proxy", needs('s3'), async () => {
  await using bucket = await makeBucket('s3')
  await bucket.put('flows/flow.py', 's')
  const { certificate, key } = makeAuthority().issue()
  const expires = new Date(Date.now() + 3_600_000).toISOString()
  const keys = `<AccessKeyId>${bucket.accessKeyId}</AccessKeyId><SecretAccessKey>${bucket.secretAccessKey}</SecretAccessKey>`
  const role = `<Credentials>${keys}<SessionToken></SessionToken><Expiration>${expires}</Expiration></Credentials>`
  const answer = `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult>${role}</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`
  const sts = createServer({ cert: certificate, key }, (_, response) => response.end(answer))
  const { port } = await listen(sts)
  await using proxy = await startForwardProxy()
  await using directory = await makeDirectory()
  await writeFile(join(directory.path, 'token'), 't')
  const env = {
    HTTPS_PROXY: proxy.url,
    NODE_TLS_REJECT_UNAUTHORIZED: '0',
    AWS_REGION: 'us-east-1',
    AWS_ENDPOINT_URL_S3: bucket.endpoint,
    AWS_ENDPOINT_URL_STS: `https://127.0.0.1:${port}`,
    AWS_ROLE_ARN: 'arn:aws:iam::1:role/r',
    AWS_WEB_IDENTITY_TOKEN_FILE: join(directory.path, 'token'),
  }
  const fetched = await fetchTree({ slug: 's3', data: { bucket_path: `${bucket.bucket}/flows` }, env })
  sts.closeAllConnections()
  await new Promise(resolve => sts.close(resolve))
  assert.deepEqual(fetched, { 'flow.py': 's' })
  assert.deepEqual([...new Set(proxy.requests)], [`CONNECT 127.0.0.1:${port}`])
})

test(
  'what is uploaded to HDFS goes through the proxy on both ways, to the name node and to the data node',
  needs('webhdfs'),
  async () => {
    const { host = '', port = '', user } = storageServer('webhdfs')
    await using proxy = await startForwardProxy()
    await using directory = await makeDirectory()
    await writeFile(join(directory.path, 'flow.py'), 'h')
    const { slug, data } = remote(`webhdfs://${host}:${port}/${randomUUID()}`, { user })
    const storage = await openWritableStorage({ slug, data }, makeContext({ proxies: { http: proxy.url } }))
    const signal = new AbortController().signal
    assert.equal(await storage.putDirectory(directory.path, undefined, undefined, signal), 1)
    assert.equal(Buffer.from(await storage.readPath('flow.py', signal)).toString(), 'h')
    const ports = proxy.requests.filter(line => line.startsWith('PUT ')).map(line => new URL(line.slice(4)).port)
    assert.equal(ports.length, 2)
    assert.equal(ports[0], port)
    assert.notEqual(ports[1], port)
  },
)
