// Output on its way to the API: however much a command says, requests and memory keep their bounds.

import assert from 'node:assert/strict'
import test from 'node:test'
import * as v from 'valibot'
import { OutputRelay } from '../../src/agent/output.ts'
import { newRecord } from '../../src/agent/record.ts'
import { Turns } from '../../src/agent/turns.ts'
import { createLogger } from '../../src/logger.ts'
import { PrefectClient } from '../../src/prefect/client.ts'
import type { FlowRun } from '../../src/prefect/types.ts'
import { type ChaosProxy, startChaosProxy } from '../support/chaos-proxy.ts'

const logger = createLogger({ level: 'ERROR', pretty: true, destination: process.stderr })
const logs = 'POST /logs/'
const never = new AbortController().signal

/** A relay whose API takes all logs, and shows what it was sent. */
async function openRelay() {
  const api = await startChaosProxy('http://127.0.0.1:9/api')
  api.spoil({ route: logs }, { kind: 'answer', status: 201 })
  api.spoil({ route: 'GET /csrf-token' }, { kind: 'answer', status: 404 })
  const client = new PrefectClient({ url: api.apiUrl, logger, maxRetries: 0 })
  const relay = new OutputRelay(client, new Turns(), { print: () => undefined, toApi: true }, logger, never)
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what a record takes of a run
  const run = { id: '3f2b8a1e-1111-4222-8333-444455556666', name: 'noisy', state: null } as FlowRun
  return {
    api,
    relay,
    output: relay.open({ ...newRecord(run, run.id), reports: 'agent' }),
    async [Symbol.asyncDispose]() {
      await relay.flush()
      await client[Symbol.asyncDispose]()
      await api[Symbol.asyncDispose]()
    },
  }
}

const Messages = v.array(v.object({ message: v.string() }))

function bodiesOf(api: ChaosProxy): string[] {
  return api.requests.filter(({ route }) => route === logs).map(({ body }) => body)
}

function messagesOf(api: ChaosProxy): string[] {
  return bodiesOf(api).flatMap(body => {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- as the relay has sent it
    const entries = JSON.parse(body) as { message: string }[]
    return entries.map(entry => entry.message)
  })
}

/** Prefect's own handler sends no larger request (PREFECT_LOGGING_TO_API_BATCH_SIZE). */
const largestBody = 4_000_000

const noises: readonly [string, string][] = [
  ['empty lines', ''],
  ['short lines', '123456'],
  ['lines of control characters', '\u001b'.repeat(5_000)],
  ['lines of a script with long characters', '漢'.repeat(5_000)],
]
for (const [what, line] of noises) {
  test(`no request is larger than one of Prefect's, whatever is printed: ${what}`, async () => {
    await using stage = await openRelay()
    const { api, output, relay } = stage
    output.write(Array.from({ length: 600_000 / Math.max(1, line.length / 10) }, () => line))
    await relay.flush()
    const sizes = bodiesOf(api).map(body => Buffer.byteLength(body))
    assert.ok(sizes.length > 1)
    assert.ok(Math.max(...sizes) < largestBody, String(sizes))
  })
}

test('of more lines than may wait the oldest are dropped, also of empty ones, and the stream says how many', async () => {
  await using stage = await openRelay()
  const { api, output, relay } = stage
  output.write(Array.from({ length: 600_000 }, () => ''))
  output.write(['the last one'])
  await relay.flush()
  const messages = messagesOf(api)
  const dropped = Number(/^rigel: (\d+) earlier lines were dropped/.exec(messages[0] ?? '')?.[1])
  assert.equal(messages.length - 1 + dropped, 600_001)
  assert.ok(messages.length < 100_000, String(messages.length))
  assert.equal(messages.at(-1), 'the last one')
})

test('a line costs no more when many wait', async () => {
  await using stage = await openRelay()
  const { output } = stage
  output.write(Array.from({ length: 700_000 }, () => 'left 1'))
  // Of the processor's time, for a machine that does something else meanwhile takes none of that.
  const from = process.threadCpuUsage()
  for (let line = 0; line < 5_000; line++) output.write(['left 1'])
  assert.ok(process.threadCpuUsage(from).user < 3_000_000, 'moving all of them each time takes two milliseconds a line')
})

test('a line that is too long for one message goes in several, whole, and no character is cut in two', async () => {
  await using stage = await openRelay()
  const line = `${'a'.repeat(23_999)}${'🙂'.repeat(24_000)}b`
  stage.output.write([line, ''])
  await stage.relay.flush()
  const sent = bodiesOf(stage.api).flatMap(body => v.parse(Messages, JSON.parse(body)))
  const messages = sent.map(({ message }) => message)
  assert.equal(messages.join(''), line)
  assert.equal(messages.at(-1), '')
  for (const message of messages) assert.ok(message.isWellFormed() && message.length <= 24_000)
})
