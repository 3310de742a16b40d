// The ways to the server: TLS under an authority of one's own, forward and tunnel proxies, and what stays open.
//
// Real sockets all along; the server behind is a small one that knows its version.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { createServer, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { Server, Socket } from 'node:net'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { promisify } from 'node:util'
import { makeAuthority } from '../support/certificates.ts'
import { makeDirectory } from '../support/directory.ts'
import { startForwardProxy } from '../support/forward-proxy.ts'
import { until } from '../support/until.ts'
import { failure, makeClient, never } from './support.ts'

interface VersionServer extends AsyncDisposable {
  readonly port: number
  readonly url: string
  /** Connections that it has accepted so far. */
  readonly accepted: () => number
  /** Those that are open now. */
  readonly open: () => number
}

function answer(_: unknown, response: ServerResponse): void {
  // Said by us, so that Node does not add how long it will keep the connection: Prefect's server does not say it either.
  response.setHeader('connection', 'keep-alive')
  response.end('"2.20.25"')
}

async function startVersionServer(tls?: {
  readonly certificate: string
  readonly key: string
}): Promise<VersionServer> {
  const server: Server = tls ? createTlsServer({ cert: tls.certificate, key: tls.key }, answer) : createServer(answer)
  if ('keepAliveTimeout' in server) server.keepAliveTimeout = 60_000
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => sockets.add(socket))
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port was given')
  return {
    port: address.port,
    url: `${tls ? 'https' : 'http'}://127.0.0.1:${address.port}/api`,
    accepted: () => sockets.size,
    open: () => [...sockets].filter(socket => !socket.destroyed).length,
    async [Symbol.asyncDispose]() {
      const closed = new Promise(resolve => server.close(resolve))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

test('a certificate of an unknown authority is refused, before anything is sent', async () => {
  await using server = await startVersionServer(makeAuthority().issue())
  await using logged = makeClient(server.url, { maxRetries: 0 })
  const error = await failure(logged.client.readVersion(never))
  assert.deepEqual([error.kind, error.mayHaveHappened], ['unreachable', false])
  assert.match(error.message, /certificate/)
})

test('a CA file is trusted, also when it comes into being only later', async () => {
  await using directory = await makeDirectory()
  const authority = makeAuthority()
  await using server = await startVersionServer(authority.issue())
  const caFile = join(directory.path, 'ca.pem')
  await using logged = makeClient(server.url, { maxRetries: 0, tls: { caFile } })
  const error = await failure(logged.client.readVersion(never))
  assert.equal(error.kind, 'unreachable')
  assert.match(error.message, /ca\.pem/)
  await writeFile(caFile, authority.certificate)
  assert.equal(await logged.client.readVersion(never), '2.20.25')
})

test('a certificate for another name is refused, unless verification is switched off', async () => {
  await using directory = await makeDirectory()
  const authority = makeAuthority()
  const caFile = join(directory.path, 'ca.pem')
  await writeFile(caFile, authority.certificate)
  await using server = await startVersionServer(authority.issue(['prefect.example']))
  await using strict = makeClient(server.url, { maxRetries: 0, tls: { caFile } })
  assert.match((await failure(strict.client.readVersion(never))).message, /does not match certificate/)
  await using lax = makeClient(server.url, { maxRetries: 0, tls: { insecureSkipVerify: true } })
  assert.equal(await lax.client.readVersion(never), '2.20.25')
})

test('calls share connections, eight at most', async () => {
  await using server = await startVersionServer()
  await using logged = makeClient(server.url)
  for (let calls = 0; calls < 5; calls++) await logged.client.readVersion(never)
  // undici gives an answer out a moment before it takes its connection back, hence the second one.
  assert.ok(server.accepted() <= 2, `${server.accepted()} connections`)
  await Promise.all(Array.from({ length: 60 }, () => logged.client.readVersion(never)))
  assert.ok(server.accepted() <= 8, `${server.accepted()} connections`)
})

test('an idle connection is closed by us before Prefect’s server would do so, after 5 s', async () => {
  await using server = await startVersionServer()
  await using logged = makeClient(server.url)
  // A machine that stands still makes it later: the soonest of a few tells.
  let soonest = Number.POSITIVE_INFINITY
  for (let tries = 0; tries < 5 && soonest >= 4.9; tries++) {
    const started = performance.now()
    await logged.client.readVersion(never)
    await until(() => server.open() === 0)
    soonest = Math.min(soonest, (performance.now() - started) / 1000)
  }
  assert.ok(soonest > 1 && soonest < 4.9, `closed after ${soonest} s`)
})

test('plain HTTP goes through a forward proxy, which is told whom to ask', async () => {
  await using server = await startVersionServer()
  await using proxy = await startForwardProxy()
  await using logged = makeClient(server.url, { proxies: { http: proxy.url } })
  assert.equal(await logged.client.readVersion(never), '2.20.25')
  assert.deepEqual(proxy.requests, [`GET ${server.url}/admin/version`])
})

test('HTTPS goes through a tunnel, and the certificate is still that of the server', async () => {
  await using directory = await makeDirectory()
  const authority = makeAuthority()
  const caFile = join(directory.path, 'ca.pem')
  await writeFile(caFile, authority.certificate)
  await using server = await startVersionServer(authority.issue())
  await using proxy = await startForwardProxy()
  await using logged = makeClient(server.url, { maxRetries: 0, proxies: { all: proxy.url }, tls: { caFile } })
  assert.equal(await logged.client.readVersion(never), '2.20.25')
  assert.deepEqual(proxy.requests, [`CONNECT 127.0.0.1:${server.port}`])

  await using other = await startVersionServer(authority.issue(['prefect.example']))
  await using strict = makeClient(other.url, { maxRetries: 0, proxies: { all: proxy.url }, tls: { caFile } })
  const error = await failure(strict.client.readVersion(never))
  assert.deepEqual([error.kind, error.mayHaveHappened], ['unreachable', false])
})

test('an exception in NO_PROXY goes around the proxy', async () => {
  await using server = await startVersionServer()
  await using proxy = await startForwardProxy()
  await using logged = makeClient(server.url, { proxies: { all: proxy.url, no: 'localhost,127.0.0.1' } })
  assert.equal(await logged.client.readVersion(never), '2.20.25')
  assert.deepEqual(proxy.requests, [])
})

test('a proxy that wants credentials gets them from its URL, and they are never shown', async () => {
  await using server = await startVersionServer()
  const authority = makeAuthority()
  await using secured = await startVersionServer(authority.issue())
  await using proxy = await startForwardProxy({ credentials: 'me:hunter2' })
  const withCredentials = proxy.url.replace('//', '//me:hunter2@')
  await using logged = makeClient(server.url, { proxies: { all: withCredentials } })
  assert.equal(await logged.client.readVersion(never), '2.20.25')

  const wrong = { maxRetries: 0, proxies: { all: withCredentials.replace('hunter2', 'hunter3') } }
  for (const url of [server.url, secured.url]) {
    await using refused = makeClient(url, wrong)
    const error = await failure(refused.client.readVersion(never))
    assert.match(error.message, /407/)
    assert.doesNotMatch(error.message + refused.lines.join(''), /hunter/)
  }
})

test('a proxy that is not there means that nothing was sent', async () => {
  await using server = await startVersionServer()
  const gone = await startForwardProxy()
  await gone[Symbol.asyncDispose]()
  await using logged = makeClient(server.url, { maxRetries: 0, proxies: { all: gone.url } })
  assert.equal((await failure(logged.client.readVersion(never))).kind, 'unreachable')
})

test('a closed client lets its process end, and cuts what was under way', async () => {
  await using server = await startVersionServer()
  const logged = makeClient(server.url)
  await logged.client.readVersion(never)
  await logged[Symbol.asyncDispose]()
  const error = await failure(logged.client.readVersion(never))
  assert.equal(error.kind, 'unreachable')
})

test('a call without a proxy loads no more of undici than its pool, for the rest is 10 MiB', async () => {
  await using server = await startVersionServer()
  const client = new URL('../../src/prefect/client.ts', import.meta.url).href
  const body = `import { createRequire } from 'node:module'
    import { PrefectClient } from ${JSON.stringify(client)}
    const client = new PrefectClient({ url: ${JSON.stringify(server.url)}, logger: {} })
    await client.readVersion(new AbortController().signal)
    await client[Symbol.asyncDispose]()
    console.log(Object.keys(createRequire(import.meta.url).cache).filter(path => path.includes('/undici/')).join(' '))`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', body])
  assert.match(stdout, /lib\/dispatcher\/pool\.js/)
  assert.doesNotMatch(stdout, /undici\/index\.js|lib\/web|lib\/mock|proxy-agent/)
})
