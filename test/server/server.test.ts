import assert from 'node:assert/strict'
import { stat } from 'node:fs/promises'
import { request } from 'node:http'
import { dirname } from 'node:path'
import { test } from 'node:test'
import { createLogger } from '../../src/logger.ts'
import { startServer } from '../../src/server/server.ts'
import { type Embedded, startEmbedded } from './embedded.ts'

const silent = createLogger({ level: 'CRITICAL', pretty: false, destination: { write: () => undefined } })

const mode = async (path: string) => (await stat(path)).mode & 0o777
const at = (seconds: number) => new Date(Date.now() + seconds * 1000).toISOString()

const scheduled = (seconds: number) => ({
  state: { type: 'SCHEDULED', state_details: { scheduled_time: at(seconds) } },
})

/** `fetch` does not let a caller choose the Host header. */
async function statusFor(server: Embedded, headers: Record<string, string>): Promise<number | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<number | undefined>()
  request(`${server.apiUrl}/health`, { headers, agent: false }, response => {
    response.resume()
    response.on('end', () => resolve(response.statusCode))
  })
    .on('error', reject)
    .end()
  return await promise
}

async function makeRun(server: Embedded, deployment: object = {}, run: object = {}) {
  const flow = (await server.call('POST', '/flows/', { name: 'main' })).body
  const columns = { name: 'd', flow_id: flow.id, work_queue_name: 'q', ...deployment }
  const { id } = (await server.call('POST', '/deployments/', columns)).body
  return (await server.call('POST', `/deployments/${id}/create_flow_run`, run)).body
}

test('a request under a foreign host name or from a foreign page is refused', async () => {
  await using server = await startEmbedded()
  const own = `127.0.0.1:${server.port}`
  assert.equal(await statusFor(server, { host: own }), 200)
  assert.equal(await statusFor(server, { host: `localhost:${server.port}` }), 200)
  assert.equal(await statusFor(server, { host: own, origin: `http://${own}` }), 200)
  assert.equal(await statusFor(server, { host: `evil.example:${server.port}` }), 403)
  assert.equal(await statusFor(server, { host: `127.0.0.1.evil.example:${server.port}` }), 403)
  assert.equal(await statusFor(server, { host: own, origin: 'https://evil.example' }), 403)
  assert.equal(await statusFor(server, { host: own, origin: 'null' }), 403)
})

test('a public URL opens its own host name and nothing else', async () => {
  await using server = await startEmbedded({ publicUrl: 'https://prefect.example/api' })
  assert.equal(server.apiUrl, 'https://prefect.example/api')
  const headers = async (host: string) => {
    const local = { ...server, apiUrl: `http://127.0.0.1:${server.port}/api` }
    return await statusFor(local, { host })
  }
  assert.equal(await headers('prefect.example'), 200)
  assert.equal(await headers('evil.example'), 403)
})

test('the database is readable for its owner only', async () => {
  await using server = await startEmbedded()
  assert.equal(await mode(server.databasePath), 0o600)
  assert.equal(await mode(`${server.databasePath}-wal`), 0o600)
  assert.equal(await mode(dirname(server.databasePath)), 0o700)
})

test('a database that is in use is not opened a second time', async () => {
  await using server = await startEmbedded()
  const options = { databasePath: server.databasePath, port: 0, logger: silent }
  await assert.rejects(startServer(options, new AbortController().signal), /in use by another server/)
})

test('a port that is taken is said in a sentence, and the database is let go', async () => {
  await using server = await startEmbedded()
  await assert.rejects(startEmbedded({ port: server.port }), /Port \d+ on 127.0.0.1 is taken/)
})

test('the server ends when its signal is aborted', async () => {
  const stopping = new AbortController()
  await using first = await startEmbedded()
  const other = await startServer(
    { databasePath: `${first.databasePath}.other`, port: 0, logger: silent },
    stopping.signal,
  )
  assert.equal((await fetch(`${other.apiUrl}/health`)).status, 200)
  stopping.abort()
  await other[Symbol.asyncDispose]()
  await assert.rejects(fetch(`${other.apiUrl}/health`))
})

test('what is not JSON, too large or of the wrong kind is refused, and the server goes on', async () => {
  await using server = await startEmbedded()
  const post = (body: unknown, headers = {}) => server.call('POST', '/flows/', body, headers)
  assert.equal((await post('{"name":')).status, 422)
  assert.equal((await post('"text"')).status, 422)
  assert.equal((await post('[]')).status, 422)
  assert.equal((await post('null')).status, 422)
  assert.equal((await post({ name: 'x' }, { 'content-type': 'text/plain' })).status, 422)
  assert.equal((await post({ name: 'x'.repeat(17 * 1024 * 1024) })).status, 413)
  assert.equal((await post(`{"name":"deep","tags":${'['.repeat(100_000)}${']'.repeat(100_000)}}`)).status, 422)
  assert.equal((await server.call('GET', '/work_queues/name/..%2f..%2fetc%2fpasswd')).status, 404)
  assert.equal((await server.call('GET', '/flows/name/%00')).status, 404)
  const injection = { flow_runs: { name: { any_: ["'; DROP TABLE flow_run; --"] } } }
  assert.deepEqual((await server.call('POST', '/flow_runs/filter', injection)).body, [])
  assert.equal((await post({ name: 'fine' })).status, 201)
})

test('names that mean something to JavaScript are plain names in parameters', async () => {
  await using server = await startEmbedded()
  const parameters = '{"__proto__": {"a": 1}, "constructor": 2, "toString": 3}'
  const flow = (await server.call('POST', '/flows/', { name: 'main' })).body
  const { body } = await server.call('POST', '/flow_runs/', `{"flow_id": "${flow.id}", "parameters": ${parameters}}`)
  assert.deepEqual(JSON.stringify(body.parameters), JSON.stringify(JSON.parse(parameters)))
})

test('a queue hands out due runs only, earliest first, within its limit, and nothing while paused', async () => {
  await using server = await startEmbedded()
  const late = await makeRun(server, {}, scheduled(-20))
  const later = await makeRun(server, {}, scheduled(-10))
  const future = await makeRun(server, {}, scheduled(3600))
  const queue = (await server.call('GET', '/work_queues/name/q')).body
  const poll = async (seconds = 15) => {
    const { body } = await server.call('POST', `/work_queues/${queue.id}/get_runs`, { scheduled_before: at(seconds) })
    return body.map(run => run.id)
  }
  assert.deepEqual(await poll(), [late.id, later.id])
  assert.deepEqual(await poll(4000), [late.id, later.id, future.id])
  await server.call('PATCH', `/work_queues/${queue.id}`, { concurrency_limit: 2 })
  assert.deepEqual(await poll(4000), [late.id, later.id])
  await server.call('POST', `/flow_runs/${late.id}/set_state`, { state: { type: 'PENDING' } })
  assert.deepEqual(await poll(4000), [later.id], 'a claimed run takes a slot')
  await server.call('PATCH', `/flow_runs/${late.id}`, { infrastructure_pid: 'host:1' })
  await server.call('POST', `/flow_runs/${late.id}/set_state`, { state: { type: 'CANCELLING' } })
  assert.deepEqual(await poll(4000), [later.id], 'and keeps it while it is Cancelling')
  await server.call('PATCH', `/work_queues/${queue.id}`, { is_paused: true })
  assert.deepEqual(await poll(4000), [])
})

test('a poll is noted, unless a person looks at the queue', async () => {
  await using server = await startEmbedded()
  const queue = (await server.call('POST', '/work_queues/', { name: 'q' })).body
  const read = async () => (await server.call('GET', `/work_queues/${queue.id}`)).body
  await server.call('POST', `/work_queues/${queue.id}/get_runs`, {}, { 'x-prefect-ui': 'true' })
  assert.equal((await read()).last_polled, null)
  await server.call('POST', `/work_queues/${queue.id}/get_runs`, {})
  assert.ok((await read()).last_polled)
  assert.equal((await read()).status, 'READY')
})

test('of two agents that claim one run at once, one gets it', async () => {
  await using server = await startEmbedded()
  const run = await makeRun(server)
  const claims = await Promise.all(
    Array.from({ length: 10 }, () =>
      server.call('POST', `/flow_runs/${run.id}/set_state`, { state: { type: 'PENDING' } }),
    ),
  )
  assert.equal(claims.filter(({ body }) => body.status === 'ACCEPT').length, 1)
  assert.equal(claims.filter(({ body }) => body.status === 'ABORT').length, 9)
})

test('secrets are hidden from those who do not ask for them', async () => {
  await using server = await startEmbedded()
  const type = (await server.call('GET', '/block_types/slug/secret')).body
  const schemas = { block_schemas: { block_type_id: { any_: [type.id] } } }
  const [schema] = (await server.call('POST', '/block_schemas/filter', schemas)).body
  const document = { name: 'pw', data: { value: 'hush' }, block_type_id: type.id, block_schema_id: schema?.id }
  const created = await server.call('POST', '/block_documents/', document)
  assert.equal(created.status, 201)
  const read = async (query: string) =>
    JSON.stringify((await server.call('GET', `/block_documents/${created.body.id}${query}`)).body)
  assert.doesNotMatch(JSON.stringify(created.body), /hush/)
  assert.doesNotMatch(await read(''), /hush/)
  assert.match(await read('?include_secrets=true'), /hush/)
})
