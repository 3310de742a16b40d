import assert from 'node:assert/strict'
import test from 'node:test'

import { type Part, startStatusServer } from '../../src/agent/status.ts'
import { UserError } from '../../src/errors.ts'

const never = new AbortController().signal
const well = { api: { status: 'ok' }, journal: { status: 'ok' } } as const

function start(parts: () => Readonly<Record<string, Part>>, signal = never) {
  return startStatusServer({ host: '127.0.0.1', port: 0, parts }, signal)
}

test('/ready answers 200 while every part is well, and 503 with the name of the sick one', async () => {
  let parts: Readonly<Record<string, Part>> = well
  await using server = await start(() => parts)
  const good = await fetch(`${server.url}/ready`)
  assert.equal(good.status, 200)
  assert.deepEqual(await good.json(), { status: 'ready', parts: well })
  parts = { ...well, api: { status: 'sick', detail: 'no answer for 40 s' } }
  const bad = await fetch(`${server.url}/ready?verbose`)
  assert.equal(bad.status, 503)
  assert.equal(bad.headers.get('cache-control'), 'no-store')
  assert.deepEqual(await bad.json(), { status: 'not ready', parts })
})

test('/live answers 200 also while a part is sick', async () => {
  await using server = await start(() => ({ api: { status: 'sick' } }))
  const answer = await fetch(`${server.url}/live`)
  assert.equal(answer.status, 200)
  assert.deepEqual(await answer.json(), { status: 'alive' })
})

test('other paths and methods are refused, and HEAD has no body', async () => {
  await using server = await start(() => well)
  assert.equal((await fetch(`${server.url}/`)).status, 404)
  assert.equal((await fetch(`${server.url}/ready`, { method: 'POST', body: 'x' })).status, 405)
  const head = await fetch(`${server.url}/ready`, { method: 'HEAD' })
  assert.equal(head.status, 200)
  assert.equal(await head.text(), '')
})

test('the abort of its signal closes it, also under an open connection', async () => {
  const controller = new AbortController()
  await using server = await start(() => well, controller.signal)
  await (await fetch(`${server.url}/live`)).text()
  controller.abort()
  await server[Symbol.asyncDispose]()
  await assert.rejects(fetch(`${server.url}/live`))
})

test('a port that is taken is refused with a sentence', async () => {
  await using server = await start(() => well)
  await assert.rejects(
    startStatusServer({ host: '127.0.0.1', port: server.port, parts: () => well }, never),
    (error: unknown) => error instanceof UserError && /port/.test(error.message) && /another/i.test(error.hint ?? ''),
  )
})
