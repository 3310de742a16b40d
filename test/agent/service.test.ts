import assert from 'node:assert/strict'
import process from 'node:process'
import test from 'node:test'

import { Service } from '../../src/agent/service.ts'
import { createLogger } from '../../src/logger.ts'
import { listen } from '../support/notify-socket.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'

const logger = createLogger({ level: 'ERROR', pretty: false, destination: { write: () => undefined } })

function start(environment: Readonly<Record<string, string>>, stopping: AbortSignal, port: number | undefined = 0) {
  const all = { PATH: process.env.PATH, ...environment }
  return Service.start({ environment: all, pid: process.pid, status: { host: '127.0.0.1', port }, logger }, stopping)
}

async function ask(service: Service, path: string): Promise<{ status: number; text: string }> {
  const answer = await fetch(`${service.url}${path}`)
  return { status: answer.status, text: await answer.text() }
}

test('a service is live at once, ready with its agent, sick with its parts, and not ready while it stops', async () => {
  const stopping = new AbortController()
  await using service = await start({}, stopping.signal)
  assert.equal((await ask(service, '/live')).status, 200)
  const early = await ask(service, '/ready')
  assert.equal(early.status, 503)
  assert.match(early.text, /waiting for the state folder/)

  const ailments: Record<string, string | undefined> = { api: undefined, host: undefined, poll: undefined }
  service.attach({ ailments })
  assert.equal((await ask(service, '/ready')).status, 200)

  ailments.host = 'the disk is full'
  const sick = await ask(service, '/ready')
  assert.equal(sick.status, 503)
  assert.match(sick.text, /"host":\{"status":"sick","detail":"the disk is full"\}/)
  assert.match(sick.text, /"api":\{"status":"ok"\}/)

  ailments.host = undefined
  stopping.abort()
  const late = await ask(service, '/ready')
  assert.equal(late.status, 503)
  assert.match(late.text, /"agent":\{"status":"sick","detail":"stopping"\}/)
  assert.equal((await ask(service, '/live')).status, 200)
})

test('without a port nothing is served', async () => {
  await using service = await Service.start(
    { environment: {}, pid: process.pid, status: { host: '127.0.0.1', port: undefined }, logger },
    new AbortController().signal,
  )
  assert.equal(service.url, undefined)
})

test('the service manager hears ready, signs of life also while draining, and stopping', needs('systemd'), async () => {
  await using listener = await listen('reads')
  const stopping = new AbortController()
  await using service = await start({ NOTIFY_SOCKET: listener.socket, WATCHDOG_USEC: '100000' }, stopping.signal)
  assert.deepEqual(listener.lines, [])
  const count = (line: string): number => listener.lines.filter(heard => heard === line).length
  const ailments: Record<string, string | undefined> = { api: undefined, poll: undefined }
  service.attach({ ailments })
  await until(() => count('READY=1') === 1 && count('WATCHDOG=1') > 1)
  stopping.abort()
  await until(() => count('STOPPING=1') === 1)
  // Nobody polls any more, and that is as it should be.
  ailments.poll = 'no poll was begun for 100 s'
  const before = count('WATCHDOG=1')
  await until(() => count('WATCHDOG=1') > before + 2)
})

test('an agent whose polls cease although the API answers gives no more signs of life', needs('systemd'), async () => {
  await using listener = await listen('reads')
  await using service = await start(
    { NOTIFY_SOCKET: listener.socket, WATCHDOG_USEC: '100000' },
    new AbortController().signal,
  )
  const count = (): number => listener.lines.filter(line => line === 'WATCHDOG=1').length
  let looked = 0
  let isStuck = false
  let isApiDown = true
  service.attach({
    get ailments() {
      looked++
      return { poll: isStuck ? 'late' : undefined, api: isApiDown ? 'no answer' : undefined }
    },
  })
  const lookedMore = async (times: number): Promise<void> => {
    const before = looked
    await until(() => looked >= before + times)
  }
  isStuck = true
  await until(() => count() > 2)
  isApiDown = false
  await lookedMore(2)
  const heard = count()
  await lookedMore(3)
  assert.equal(count(), heard)
})
