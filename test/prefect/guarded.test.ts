// Servers that do not let everybody in: CSRF protection on both majors, a password on 3.x.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import test from 'node:test'
import { buildPending } from '../../src/prefect/states.ts'
import { startChaosProxy } from '../support/chaos-proxy.ts'
import { type PrefectServer, startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { failure, makeClient, makeRun, never } from './support.ts'

const TOKEN = 'GET /csrf-token'
const PASSWORD = 'admin:pass:word'

/** As if the tokens had expired, or the server had got a new database. */
function dropTokens(server: PrefectServer): void {
  using database = new DatabaseSync(join(server.home, 'prefect.db'))
  database.exec('PRAGMA busy_timeout = 10000')
  assert.ok(database.prepare('DELETE FROM csrf_token').run().changes > 0)
}

for (const which of ['prefect2', 'prefect3'] as const) {
  test(`a ${which} server with CSRF protection`, needs(which), async t => {
    const settings = { PREFECT_SERVER_CSRF_PROTECTION_ENABLED: 'true' }
    const password = which === 'prefect3' ? { PREFECT_SERVER_API_AUTH_STRING: PASSWORD } : {}
    await using server = await startPrefectServer(which, { settings: { ...settings, ...password } })
    await using proxy = await startChaosProxy(server.apiUrl)
    const authString = which === 'prefect3' ? PASSWORD : undefined

    await t.test('takes changes with a token that is asked for once', async () => {
      await using logged = makeClient(proxy.apiUrl, { authString })
      const { client } = logged
      const flows = await Promise.all(['a', 'b', 'c'].map(name => client.createFlow(name, never)))
      assert.equal(flows.length, 3)
      assert.equal(client.calls.get(TOKEN), 1)
    })

    await t.test('reads need no token', async () => {
      await using logged = makeClient(proxy.apiUrl, { authString })
      await logged.client.readVersion(never)
      assert.equal(logged.client.calls.get(TOKEN), undefined)
    })

    await t.test('refuses a token that it does not know: a new one is fetched, also for a claim', async () => {
      await using logged = makeClient(proxy.apiUrl, { authString })
      const { client } = logged
      const { run } = await makeRun(client, 'guarded')
      dropTokens(server)
      const state = buildPending({ transitionId: randomUUID() })
      const result = await client.setFlowRunState(run.id, state, { claim: true }, never)
      assert.deepEqual([result.status, result.state?.type], ['ACCEPT', 'PENDING'])
      assert.equal(client.calls.get(TOKEN), 2)
    })

    await t.test('a token that is refused twice is an error, and no endless round', async () => {
      await using logged = makeClient(proxy.apiUrl, { authString })
      const body = { detail: 'Invalid CSRF token or client identifier.' }
      proxy.spoil({ route: 'POST /flows/' }, { kind: 'answer', status: 403, body })
      const before = proxy.count('POST /flows/')
      assert.equal((await failure(logged.client.createFlow('d', never))).status, 403)
      assert.equal(proxy.count('POST /flows/') - before, 2)
      proxy.heal()
    })

    await t.test('a claim whose token could not be had has not been made', async () => {
      await using logged = makeClient(proxy.apiUrl, { authString })
      proxy.spoil({ route: TOKEN }, { kind: 'drop-answer' })
      const state = buildPending({ transitionId: randomUUID() })
      const error = await failure(logged.client.setFlowRunState(randomUUID(), state, { claim: true }, never))
      assert.deepEqual([error.path, error.mayHaveHappened], ['/csrf-token', false])
      proxy.heal()
    })

    await t.test('a client that is told to use no tokens is refused in the server’s words', async () => {
      await using logged = makeClient(proxy.apiUrl, { authString, csrf: false })
      const error = await failure(logged.client.createFlow('g', never))
      assert.deepEqual([error.status, error.isFinal], [403, false])
      assert.match(error.message, /Missing CSRF token/)
    })

    if (authString === undefined) return
    for (const [what, options] of [
      ['a wrong password', { authString: 'admin:pass' }],
      ['a key', { key: 'pnu_x' }],
      ['nothing', {}],
    ] as const) {
      await t.test(`${what} is answered 401, which is named with what to do, and is not final`, async () => {
        await using logged = makeClient(proxy.apiUrl, options)
        const error = await failure(logged.client.readVersion(never))
        assert.deepEqual([error.status, error.isFinal, error.mayHaveHappened], [401, false, false])
        assert.match(error.message, /Unauthorized\. Check PREFECT_API_KEY or PREFECT_API_AUTH_STRING/)
        assert.equal(logged.client.health.consecutiveFailures, 1)
      })
    }

    await t.test('a user in the URL serves as well', async () => {
      await using logged = makeClient(proxy.apiUrl.replace('//', '//admin:pass%3Aword@'))
      assert.match(await logged.client.readVersion(never), /^3\./)
    })
  })
}
