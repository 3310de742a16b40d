// Answers that are not Prefect's, or not what was asked for: each becomes an error that says so, and none ends anything.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import test from 'node:test'
import { buildPending } from '../../src/prefect/states.ts'
import { type Answer, type Fault, startChaosProxy } from '../support/chaos-proxy.ts'
import { failure, makeClient, never } from './support.ts'

/** Nothing listens there: in this file the proxy answers everything itself. */
const NOWHERE = 'http://127.0.0.1:9/api'
const html = { 'content-type': 'text/html' }

const garbage: readonly (readonly [string, Answer, RegExp])[] = [
  ['HTML', { status: 200, headers: html, body: '<html>hello</html>' }, /expected JSON, got a body of type text\/html/],
  ['an empty body', { status: 200, body: '' }, /the body: expected Object, got null/],
  ['204 where a body is due', { status: 204 }, /the body: expected Object, got null/],
  ['a cut JSON text', { status: 200, body: '{"id": "' }, /expected JSON/],
  ['an array instead of an object', { status: 200, body: [] }, /id: is missing/],
  ['a number', { status: 200, body: 7 }, /the body: expected Object, got a number/],
  ['another object', { status: 200, body: { id: randomUUID() } }, /name: is missing/],
  [
    'an id that is none',
    { status: 200, body: { id: '../../etc', name: 'x' } },
    /id: expected a valid form, got a string/,
  ],
  [
    'a state of an unknown type',
    { status: 200, body: flowRun({ state_type: 'EXPLODED' }) },
    /state_type: expected .*, got a string/,
  ],
  [
    'a packed body that nobody asked for',
    { status: 200, headers: { 'content-encoding': 'gzip' }, body: '\u001f' },
    /gzip-coded, though not asked for/,
  ],
]

for (const [what, answer, message] of garbage) {
  test(`${what} is an error that names call and place`, async () => {
    await using proxy = await startChaosProxy(NOWHERE)
    await using logged = makeClient(proxy.apiUrl)
    proxy.spoil({}, { kind: 'answer', ...answer })
    const error = await failure(logged.client.readFlowRun(randomUUID(), never))
    assert.equal(error.kind, 'malformed')
    assert.match(
      error.message,
      /^GET \/flow_runs\/[0-9a-f-]{36} was answered 20[04] with something that Prefect does not send: /,
    )
    assert.match(error.message, message)
    assert.doesNotMatch(error.message, /EXPLODED|etc|hello/)
    assert.equal(logged.client.health.consecutiveFailures, 1)
  })
}

const breakages: readonly (readonly [string, Fault])[] = [
  ['no HTTP at all', { kind: 'raw', bytes: 'SSH-2.0-OpenSSH_9.2\r\n' }],
  ['a status line that cannot be', { kind: 'raw', bytes: 'HTTP/1.1 abc\r\n\r\n' }],
  ['a body shorter than it claims', { kind: 'raw', bytes: 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}' }],
  ['a chunk that cannot be', { kind: 'raw', bytes: 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n' }],
  ['two lengths', { kind: 'raw', bytes: 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}' }],
  ['nothing', { kind: 'cut' }],
]

for (const [what, fault] of breakages) {
  test(`${what} is a lost answer, for a claim too, which is sent once`, async () => {
    await using proxy = await startChaosProxy(NOWHERE)
    await using logged = makeClient(proxy.apiUrl, { csrf: false })
    proxy.spoil({}, fault)
    const state = buildPending({ transitionId: randomUUID() })
    const error = await failure(logged.client.setFlowRunState(randomUUID(), state, { claim: true }, never))
    assert.deepEqual([error.kind, error.mayHaveHappened], ['answer-lost', true])
    assert.equal(proxy.requests.length, 1)
  })
}

test('an answer larger than 64 MiB is given up', async () => {
  await using proxy = await startChaosProxy(NOWHERE)
  await using logged = makeClient(proxy.apiUrl, { maxRetries: 0 })
  proxy.spoil({}, { kind: 'answer', status: 200, body: `"${'x'.repeat(65 * 1024 * 1024)}"` })
  const error = await failure(logged.client.readVersion(never))
  assert.match(error.message, /the answer is larger than 64 MiB/)
})

test('a claim whose answer cannot be read may have been made', async () => {
  await using proxy = await startChaosProxy(NOWHERE)
  await using logged = makeClient(proxy.apiUrl, { csrf: false })
  proxy.spoil({}, { kind: 'answer', status: 201, body: { status: 'MAYBE' } })
  const state = buildPending({ transitionId: randomUUID() })
  const error = await failure(logged.client.setFlowRunState(randomUUID(), state, { claim: true }, never))
  assert.deepEqual([error.kind, error.mayHaveHappened], ['malformed', true])
})

test('one strange run in a list is left out with a warning, and does not hide the others', async () => {
  await using proxy = await startChaosProxy(NOWHERE)
  await using logged = makeClient(proxy.apiUrl, { csrf: false })
  const [good, strange] = [flowRun({}), flowRun({ state_type: 'EXPLODED' })]
  proxy.spoil({}, { kind: 'answer', status: 200, body: [strange, good, 'what'] })
  const runs = await logged.client.readFlowRuns({}, never)
  assert.deepEqual(
    runs.map(({ id }) => id),
    [good.id],
  )
  const warnings = logged.lines.filter(line => line.includes('left out an entry'))
  assert.equal(warnings.length, 2)
  assert.match(warnings[0] ?? '', new RegExp(strange.id))
})

test('a list that is no list is an error', async () => {
  await using proxy = await startChaosProxy(NOWHERE)
  await using logged = makeClient(proxy.apiUrl, { csrf: false })
  proxy.spoil({}, { kind: 'answer', status: 200, body: { detail: 'no' } })
  assert.match((await failure(logged.client.readFlowRuns({}, never))).message, /expected an array, got an object/)
})

const foreign404: readonly (readonly [string, Answer])[] = [
  ['a proxy’s page', { status: 404, headers: html, body: '<h1>404 nginx</h1>' }],
  ['the framework’s word for an unknown path', { status: 404, body: { detail: 'Not Found' } }],
  ['nothing', { status: 404, body: '' }],
]

for (const [what, answer] of foreign404) {
  test(`a 404 with ${what} does not mean that a run does not exist`, async () => {
    await using proxy = await startChaosProxy(NOWHERE)
    await using logged = makeClient(proxy.apiUrl)
    proxy.spoil({}, { kind: 'answer', ...answer })
    const error = await failure(logged.client.readFlowRun(randomUUID(), never))
    assert.deepEqual([error.kind, error.isNotFound, error.isFinal], ['status', false, false])
    assert.match(error.message, /check PREFECT_API_URL, which usually ends in \/api/)
  })
}

for (const body of [{ detail: 'Flow run not found' }, { exception_message: 'Flow run with id … not found' }]) {
  test(`a 404 with ${Object.keys(body)[0]} is Prefect’s own: there is no such run`, async () => {
    await using proxy = await startChaosProxy(NOWHERE)
    await using logged = makeClient(proxy.apiUrl)
    proxy.spoil({}, { kind: 'answer', status: 404, body })
    assert.equal(await logged.client.readFlowRun(randomUUID(), never), undefined)
    assert.equal(logged.client.health.consecutiveFailures, 0)
  })
}

test('a redirect on the same origin is followed with method and body', async () => {
  await using proxy = await startChaosProxy(NOWHERE)
  await using logged = makeClient(proxy.apiUrl, { csrf: false })
  proxy.spoil({ route: 'POST /flows/' }, { kind: 'answer', status: 307, headers: { location: '/api/elsewhere' } })
  proxy.spoil({ route: 'POST /elsewhere' }, { kind: 'answer', status: 200, body: { id: randomUUID(), name: 'daily' } })
  assert.equal((await logged.client.createFlow('daily', never)).name, 'daily')
  assert.deepEqual(
    proxy.requests.map(({ body }) => body),
    ['{"name":"daily"}', '{"name":"daily"}'],
  )
})

test('a redirect to another origin is not followed, and gets no credentials', async () => {
  await using other = await startChaosProxy(NOWHERE)
  await using proxy = await startChaosProxy(NOWHERE)
  await using logged = makeClient(proxy.apiUrl, { key: 'pnu_secret' })
  proxy.spoil({}, { kind: 'answer', status: 307, headers: { location: `${other.apiUrl}/login?token=abc` } })
  const error = await failure(logged.client.readVersion(never))
  assert.match(
    error.message,
    new RegExp(`answered 307.*It points to ${other.apiUrl}/login, which is not followed: check PREFECT_API_URL`),
  )
  assert.deepEqual([proxy.requests.length, other.requests.length], [1, 0])
})

test('a redirect that goes round in a circle ends', async () => {
  await using proxy = await startChaosProxy(NOWHERE)
  await using logged = makeClient(proxy.apiUrl)
  proxy.spoil({}, { kind: 'answer', status: 307, headers: { location: '/api/admin/version' } })
  assert.equal((await failure(logged.client.readVersion(never))).status, 307)
  assert.equal(proxy.requests.length, 6)
})

test('a refusal’s own words are passed on, the request that it echoes is not', async () => {
  await using proxy = await startChaosProxy(NOWHERE)
  await using logged = makeClient(proxy.apiUrl, { csrf: false })
  const body = {
    exception_message: 'Invalid request received.',
    exception_detail: [
      { loc: ['body', 'name'], msg: 'too short', type: 'x', input: 'hunter2', ctx: { given: 'hunter2' } },
    ],
    request_body: { name: 'hunter2' },
  }
  proxy.spoil({}, { kind: 'answer', status: 422, body })
  const error = await failure(logged.client.createFlow('hunter2', never))
  assert.match(error.message, /answered 422: Invalid request received\. body\.name: too short$/)
  assert.equal(error.isFinal, true)
  assert.doesNotMatch(logged.lines.join('') + JSON.stringify(error), /hunter2/)
})

test('the headers are those of Prefect’s client, with our own name, and custom ones last', async () => {
  await using proxy = await startChaosProxy(NOWHERE)
  const customHeaders = {
    'X-Tenant': 'a',
    'User-Agent': 'mine',
    Authorization: 'Custom abc',
    'Prefect-Csrf-Client': 'x',
  }
  await using logged = makeClient(proxy.apiUrl, { key: 'pnu_secret', customHeaders })
  proxy.spoil({}, { kind: 'answer', status: 200, body: '"2.20.25"' })
  await logged.client.readVersion(never)
  const headers = proxy.requests[0]?.headers ?? {}
  assert.equal(headers['user-agent'], 'rigel/0.0.0')
  assert.equal(headers['x-prefect-api-version'], '0.8.4')
  assert.equal(headers['x-tenant'], 'a')
  assert.equal(headers.authorization, 'Custom abc')
  assert.equal(headers['prefect-csrf-client'], undefined)
  assert.match(logged.lines.join(''), /left out custom headers.*|User-Agent/)
  assert.doesNotMatch(logged.lines.join(''), /pnu_secret|Custom abc/)
})

const authorizations = [
  [{ key: 'pnu_x' }, 'Bearer pnu_x'],
  [{ authString: 'admin:pa:ss' }, `Basic ${btoa('admin:pa:ss')}`],
  [{ key: 'pnu_x', authString: 'admin:pass' }, `Basic ${btoa('admin:pass')}`],
  [{}, undefined],
] as const

for (const [options, expected] of authorizations) {
  test(`${Object.keys(options).join(' and ') || 'no credential'} gives Authorization ${expected?.split(' ')[0]}`, async () => {
    await using proxy = await startChaosProxy(NOWHERE)
    await using logged = makeClient(proxy.apiUrl, options)
    proxy.spoil({}, { kind: 'answer', status: 200, body: '"2.20.25"' })
    await logged.client.readVersion(never)
    assert.equal(proxy.requests[0]?.headers.authorization, expected)
  })
}

test('a key with a line end, and a URL that is none, are refused without being shown', () => {
  assert.throws(
    () => makeClient(NOWHERE, { key: 'pnu_secret\n' }),
    /^UserError: The API key holds characters that cannot be sent\.$/,
  )
  assert.throws(
    () => makeClient(NOWHERE, { customHeaders: { 'X-Token': 'a\r\nb: c' } }),
    /The custom header "x-token" holds/,
  )
  for (const url of ['', 'server:4200/api', 'ftp://server/api', 'http://user:secret@']) {
    assert.throws(() => makeClient(url), /^UserError: The API URL is not an http or https URL\.$/)
  }
})

test('a Date far from ours is logged once, and moves the server’s now', async () => {
  await using proxy = await startChaosProxy(NOWHERE)
  await using logged = makeClient(proxy.apiUrl)
  const started = Date.now()
  for (let calls = 0; calls < 3; calls++) {
    const date = new Date(Date.now() + 3_600_000).toUTCString()
    proxy.spoil({ times: 1 }, { kind: 'answer', status: 200, headers: { date }, body: '"2.20.25"' })
    await logged.client.readVersion(never)
    proxy.heal()
  }
  const ahead = logged.client.serverNow().getTime() - Date.now()
  assert.ok(Math.abs(ahead - 3_600_000) < 2500 + (Date.now() - started), String(ahead))
  assert.equal(logged.lines.filter(line => line.includes('the clock of the server differs from ours')).length, 1)
})

test('a server whose clock agrees within what a Date can tell leaves our clock alone', async () => {
  await using proxy = await startChaosProxy(NOWHERE)
  await using logged = makeClient(proxy.apiUrl)
  proxy.spoil({}, { kind: 'answer', status: 200, body: '"2.20.25"' })
  await logged.client.readVersion(never)
  const before = Date.now()
  const now = logged.client.serverNow().getTime()
  assert.ok(before <= now && now <= Date.now())
})

function flowRun(
  fields: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> & { readonly id: string } {
  return { id: randomUUID(), name: 'run', flow_id: randomUUID(), state_type: 'SCHEDULED', ...fields }
}
