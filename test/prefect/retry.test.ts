// What is repeated and what is not, between a real server and a proxy that loses, delays and refuses.
//
// Judged by what the server holds and by what arrived at the proxy.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import test from 'node:test'
import { buildPending, buildRunning, buildState } from '../../src/prefect/states.ts'
import { type ChaosProxy, startChaosProxy } from '../support/chaos-proxy.ts'
import { findFreePort, startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { failure, makeClient, makeRun, never, typesOf } from './support.ts'

const SET_STATE = 'POST /flow_runs/{id}/set_state'
const READ = 'GET /flow_runs/{id}'

test('calls through a connection that fails', needs('prefect2'), async t => {
  await using server = await startPrefectServer('prefect2')
  await using proxy = await startChaosProxy(server.apiUrl)
  await using logged = makeClient(proxy.apiUrl)
  const { client } = logged
  // The first change asks for a CSRF token; afterwards the proxy sees only what the tests do.
  const { run } = await makeRun(client, 'first')

  /** Counts what arrives at the proxy while `work` runs. */
  const during = async (work: () => Promise<void>): Promise<(route: string) => number> => {
    const before = proxy.requests.length
    await work()
    const seen = proxy.requests.slice(before)
    proxy.heal()
    return route => seen.filter(request => request.route === route).length
  }

  for (const kind of ['cut', 'drop-answer', 'half-answer'] as const) {
    await t.test(`a read is repeated after: ${kind}`, async () => {
      proxy.spoil({ route: READ, nth: 1 }, { kind })
      const count = await during(async () => assert.equal((await client.readFlowRun(run.id, never))?.id, run.id))
      assert.equal(count(READ), 2)
    })
  }

  for (const status of [408, 429, 502, 503]) {
    await t.test(`a read is repeated after ${status}`, async () => {
      proxy.spoil({ route: READ, nth: 1 }, { kind: 'answer', status })
      const count = await during(async () => assert.equal((await client.readFlowRun(run.id, never))?.id, run.id))
      assert.equal(count(READ), 2)
    })
  }

  for (const status of [400, 401, 403, 500, 504]) {
    await t.test(`a read is not repeated after ${status}`, async () => {
      proxy.spoil({ route: READ }, { kind: 'answer', status })
      const count = await during(async () =>
        assert.equal((await failure(client.readFlowRun(run.id, never))).status, status),
      )
      assert.equal(count(READ), 1)
    })
  }

  await t.test('an outage is said once, with what to do, and so is its end', async () => {
    proxy.spoil({ route: READ, times: 4 }, { kind: 'answer', status: 503 })
    const before = logged.lines.length
    await client.readFlowRun(run.id, never)
    const said = logged.lines.slice(before).map(line => JSON.parse(line))
    const [warning, end, ...rest] = said.filter(({ level }) => level !== 'debug')
    assert.equal(warning.level, 'warn')
    assert.match(warning.reason, /GET \/flow_runs.* 503/)
    assert.equal(end.msg, 'Prefect API answers again')
    assert.deepEqual(rest, [])
    proxy.heal()
  })

  await t.test('what a person can do is said with the error', async () => {
    for (const [answer, hint] of [
      [{ status: 401 }, /PREFECT_API_KEY/],
      [{ status: 404, body: '<html>' }, /with its \/api/],
      [{ status: 200, body: '<html>' }, /with its \/api/],
    ] as const) {
      proxy.spoil({ route: READ, nth: 1 }, { kind: 'answer', ...answer })
      assert.match((await failure(client.readFlowRun(run.id, never))).hint ?? '', hint)
      proxy.heal()
    }
  })

  await t.test('a claim is never repeated, and a lost answer says that it may have been made', () => loseClaims(proxy))

  async function loseClaims(chaos: ChaosProxy): Promise<void> {
    const faults = ['drop-answer', 'half-answer', 'cut'] as const
    for (const kind of faults) {
      const { run } = await makeRun(client, `claim-${kind}`)
      const transitionId = randomUUID()
      chaos.spoil({ route: SET_STATE, nth: 1 }, { kind })
      const count = await during(async () => {
        const error = await failure(
          client.setFlowRunState(run.id, buildPending({ transitionId }), { claim: true }, never),
        )
        assert.deepEqual([error.kind, error.mayHaveHappened, error.isFinal], ['answer-lost', true, false])
      })
      assert.deepEqual([count(SET_STATE), count(READ)], [1, 0])
      const found = await client.readFlowRun(run.id, never)
      assert.equal(found?.state_type, kind === 'cut' ? 'SCHEDULED' : 'PENDING')
      if (kind !== 'cut') assert.equal(found?.state?.state_details.transition_id, transitionId)
    }
  }

  await t.test(
    'a claim that is answered 429, or 503 in Prefect’s words, has not been made, and is handed back at once',
    async () => {
      const { run } = await makeRun(client, 'busy')
      const answers = [
        { status: 503, body: { exception_message: 'Service Unavailable' } },
        { status: 429, body: 'slow down', headers: { 'retry-after': '30' } },
      ]
      for (const answer of answers) {
        proxy.spoil({ route: SET_STATE, times: 1 }, { kind: 'answer', ...answer })
        const call = client.setFlowRunState(
          run.id,
          buildPending({ transitionId: randomUUID() }),
          { claim: true },
          never,
        )
        const error = await failure(call)
        assert.deepEqual([error.status, error.mayHaveHappened], [answer.status, false])
        if (answer.headers) assert.equal(error.retryAfterMs, 30_000)
        proxy.heal()
      }
    },
  )

  await t.test('a claim that a gateway answers with 502 or its own 503 may have been made', async () => {
    const { run } = await makeRun(client, 'gateway')
    for (const status of [502, 503, 504, 500]) {
      proxy.spoil(
        { route: SET_STATE, times: 1 },
        { kind: 'answer', status, body: '<html>', headers: { 'content-type': 'text/html' } },
      )
      const call = client.setFlowRunState(run.id, buildPending({ transitionId: randomUUID() }), { claim: true }, never)
      assert.equal((await failure(call)).mayHaveHappened, true)
      proxy.heal()
    }
  })

  await t.test('a state whose answer was lost is looked up, found, and not sent again', async () => {
    const { run } = await makeRun(client, 'lost')
    proxy.spoil({ route: SET_STATE, nth: 1 }, { kind: 'drop-answer' })
    const count = await during(async () => {
      const result = await client.setFlowRunState(run.id, buildRunning(), {}, never)
      assert.deepEqual([result.status, result.state?.type], ['ACCEPT', 'RUNNING'])
    })
    assert.deepEqual([count(SET_STATE), count(READ)], [1, 1])
    assert.equal((await client.readFlowRun(run.id, never))?.run_count, 1)
  })

  await t.test('a state that did not arrive is looked up and sent again, once', async () => {
    const { run } = await makeRun(client, 'vanished')
    proxy.spoil({ route: SET_STATE, nth: 1 }, { kind: 'cut' })
    const count = await during(async () => {
      const result = await client.setFlowRunState(run.id, buildState('CRASHED'), {}, never)
      assert.deepEqual([result.status, result.state?.type], ['ACCEPT', 'CRASHED'])
    })
    assert.deepEqual([count(SET_STATE), count(READ)], [2, 1])
    assert.deepEqual(typesOf(await client.readFlowRunStates(run.id, never)), ['SCHEDULED', 'CRASHED'])
  })

  await t.test('a state that arrives only after the look is written once, and counts as accepted', async () => {
    const { run } = await makeRun(client, 'late')
    await using hasty = makeClient(proxy.apiUrl, { requestTimeoutSeconds: 2, csrf: false })
    // The first one times out at us, and reaches the server when the second one is on its way.
    const second = Promise.withResolvers<void>()
    proxy.spoil({ route: SET_STATE, nth: 1 }, { kind: 'hold', until: second.promise })
    const arrive = (): boolean => {
      second.resolve()
      return true
    }
    proxy.spoil({ route: SET_STATE, nth: 1, if: arrive }, { kind: 'delay', ms: 800 })
    const result = await hasty.client.setFlowRunState(run.id, buildRunning(), {}, never)
    assert.deepEqual([result.status, result.state?.type], ['ACCEPT', 'RUNNING'])
    proxy.heal()
    assert.deepEqual(typesOf(await client.readFlowRunStates(run.id, never)), ['SCHEDULED', 'RUNNING'])
  })

  await t.test('a state refused with Prefect’s own 503 is sent again without a look', async () => {
    const { run } = await makeRun(client, 'locked')
    const body = { exception_message: 'Service Unavailable' }
    proxy.spoil({ route: SET_STATE, nth: 1 }, { kind: 'answer', status: 503, body })
    const count = await during(async () => {
      assert.equal((await client.setFlowRunState(run.id, buildRunning(), {}, never)).status, 'ACCEPT')
    })
    assert.deepEqual([count(SET_STATE), count(READ)], [2, 0])
  })

  await t.test('a run that is made twice, because its answer was lost, is one run', async () => {
    const { run: model } = await makeRun(client, 'twice')
    assert.ok(model.deployment_id)
    proxy.spoil({ route: 'POST /deployments/{id}/create_flow_run', nth: 1 }, { kind: 'drop-answer' })
    const made = await client.createFlowRunFromDeployment(model.deployment_id, {}, never)
    proxy.heal()
    const runs = await client.readFlowRuns({ flow_runs: { deployment_id: { any_: [model.deployment_id] } } }, never)
    assert.deepEqual(runs.map(({ id }) => id).toSorted(), [model.id, made.id].toSorted())
  })

  await t.test('after the last repeat the error comes without a further wait, and counts in health', async () => {
    await using short = makeClient(proxy.apiUrl, { maxRetries: 1 })
    const busy = { kind: 'answer', status: 503, body: { exception_message: 'Service Unavailable' } } as const
    proxy.spoil({ route: READ, nth: 1 }, busy)
    // One more wait would be as long as this.
    proxy.spoil({ route: READ }, { ...busy, headers: { 'retry-after': '600' } })
    const count = await during(async () => {
      const started = performance.now()
      assert.match(
        (await failure(short.client.readFlowRun(run.id, never))).message,
        /answered 503: Service Unavailable/,
      )
      assert.ok(performance.now() - started < 300_000)
    })
    assert.equal(count(READ), 2)
    assert.equal(short.client.health.consecutiveFailures, 2)
    assert.match(short.client.health.lastError ?? '', /503/)
    await short.client.readFlowRun(run.id, never)
    assert.equal(short.client.health.consecutiveFailures, 0)
    assert.ok(short.client.health.lastSuccessAt)
    assert.equal(short.client.calls.get(READ), 3)
  })

  await t.test('extra codes are repeated too', async () => {
    await using extra = makeClient(proxy.apiUrl, { extraCodes: [500] })
    proxy.spoil({ route: READ, nth: 1 }, { kind: 'answer', status: 500 })
    const count = await during(async () => assert.ok(await extra.client.readFlowRun(run.id, never)))
    assert.equal(count(READ), 2)
  })

  for (const [form, text] of [
    ['seconds', () => '1.5'],
    ['a date', () => new Date(Date.now() + 2500).toUTCString()],
  ] as const) {
    await t.test(`Retry-After in ${form} is waited for`, async () => {
      proxy.spoil({ route: READ, nth: 1 }, { kind: 'answer', status: 429, headers: { 'retry-after': text() } })
      const started = performance.now()
      const before = logged.lines.length
      await during(async () => assert.ok(await client.readFlowRun(run.id, never)))
      const waited = performance.now() - started
      // What it means to wait for, as it says so: a busy machine may take longer.
      const meant = /"wait_s":([\d.]+)/.exec(
        logged.lines.slice(before).find(line => line.includes('will try again')) ?? '',
      )
      assert.ok(waited >= 1400 && Number(meant?.[1]) < 6, `waited ${waited} ms, and meant to for ${meant?.[1]} s`)
    })
  }

  await t.test('an abort ends the wait for Retry-After at once, with its reason', async () => {
    proxy.spoil({ route: READ }, { kind: 'answer', status: 429, headers: { 'retry-after': '600' } })
    const reason = new Error('stopping')
    const stop = new AbortController()
    const before = logged.lines.length
    const call = client.readFlowRun(run.id, stop.signal)
    const ended = assert.rejects(call, reason)
    await until(() => logged.lines.slice(before).some(line => line.includes('will try again')))
    const started = performance.now()
    stop.abort(reason)
    await ended
    assert.ok(performance.now() - started < 300_000)
    proxy.heal()
  })

  await t.test('an abort ends the wait for an answer at once, with its reason', async () => {
    proxy.spoil({ route: READ }, { kind: 'hang' })
    const reason = new Error('stopping')
    const stop = new AbortController()
    const before = proxy.count(READ)
    const ended = assert.rejects(client.readFlowRun(run.id, stop.signal), reason)
    await until(() => proxy.count(READ) > before)
    stop.abort(reason)
    await ended
    proxy.heal()
  })

  await t.test('an answer that never comes is given up after the timeout', async () => {
    await using hasty = makeClient(proxy.apiUrl, { requestTimeoutSeconds: 0.3, maxRetries: 0, csrf: false })
    proxy.spoil({ route: SET_STATE }, { kind: 'hang' })
    const call = hasty.client.setFlowRunState(
      run.id,
      buildPending({ transitionId: randomUUID() }),
      { claim: true },
      never,
    )
    const error = await failure(call)
    assert.deepEqual([error.kind, error.mayHaveHappened], ['answer-lost', true])
    assert.match(error.message, /no answer within 0\.3 s/)
    proxy.heal()
  })

  await t.test('fifty calls at once use eight connections at most', async () => {
    const ports = new Set<string>()
    const watch = proxy.spoil({ route: READ, if: () => true }, { kind: 'delay', ms: 20 })
    const before = proxy.requests.length
    const answers = await Promise.all(Array.from({ length: 50 }, () => client.readFlowRun(run.id, never)))
    watch()
    for (const request of proxy.requests.slice(before)) ports.add(request.connection)
    assert.ok(answers.every(answer => answer?.id === run.id))
    assert.ok(ports.size <= 8, `${ports.size} connections`)
  })

  await t.test(
    'a claim that nobody could be asked for has not been made, and the client works once somebody is there',
    async () => {
      const { run } = await makeRun(client, 'early')
      const port = await findFreePort()
      await using early = makeClient(`http://127.0.0.1:${port}/api`, { maxRetries: 0 })
      const call = () =>
        early.client.setFlowRunState(run.id, buildPending({ transitionId: randomUUID() }), { claim: true }, never)
      const error = await failure(call())
      assert.deepEqual([error.kind, error.mayHaveHappened, error.isFinal], ['unreachable', false, false])
      assert.match(error.message, /Could not reach the Prefect API at http:\/\/127\.0\.0\.1:\d+ .*ECONNREFUSED/)
      await using _late = await startChaosProxy(server.apiUrl, { port })
      assert.equal((await call()).state?.type, 'PENDING')
    },
  )
})
