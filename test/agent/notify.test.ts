import assert from 'node:assert/strict'
import process from 'node:process'
import test from 'node:test'

import { ServiceManager } from '../../src/agent/notify.ts'
import { createLogger } from '../../src/logger.ts'
import { listen } from '../support/notify-socket.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'

function makeManager(environment: Readonly<Record<string, string>>) {
  const logged: string[] = []
  const logger = createLogger({ level: 'INFO', pretty: false, destination: { write: line => void logged.push(line) } })
  const manager = new ServiceManager({
    environment: { PATH: process.env.PATH, ...environment },
    pid: process.pid,
    logger,
  })
  return { manager, logged }
}

const never = new AbortController().signal

test('ready and stopping reach the service manager, with a line of status', needs('systemd'), async () => {
  await using listener = await listen('reads')
  const { manager, logged } = makeManager({ NOTIFY_SOCKET: listener.socket })
  await manager.tellReady('polling 2 queues\nand more', never)
  await until(() => listener.lines.includes('READY=1'))
  assert.ok(listener.lines.includes('STATUS=polling 2 queues and more'))
  assert.ok(listener.lines.includes(`MAINPID=${process.pid}`))
  await manager.tellStopping('draining', never)
  await until(() => listener.lines.includes('STOPPING=1'))
  await manager.tellStatus('3 runs left', never)
  await until(() => listener.lines.includes('STATUS=3 runs left'))
  assert.deepEqual(logged, [])
})

test('the watchdog hears from us while we are alive, and no more when we are not', needs('systemd'), async () => {
  await using listener = await listen('reads')
  const { manager } = makeManager({ NOTIFY_SOCKET: listener.socket, WATCHDOG_USEC: '200000' })
  assert.equal(manager.watchdogMs, 200)
  const stop = new AbortController()
  let isAlive = true
  let asked = 0
  const kept = manager.keepWatchdog(() => {
    asked++
    return isAlive
  }, stop.signal)
  await until(() => listener.lines.filter(line => line === 'WATCHDOG=1').length >= 3)
  isAlive = false
  const askedMore = async (times: number): Promise<void> => {
    const before = asked
    await until(() => asked >= before + times)
  }
  await askedMore(2)
  const heard = listener.lines.length
  await askedMore(3)
  assert.equal(listener.lines.length, heard)
  stop.abort()
  await kept
})

test("another process's watchdog is not ours to feed", () => {
  const environment = { NOTIFY_SOCKET: '/nowhere', WATCHDOG_USEC: '1000000' }
  assert.equal(makeManager({ ...environment, WATCHDOG_PID: '1' }).manager.watchdogMs, undefined)
  assert.equal(makeManager({ ...environment, WATCHDOG_PID: String(process.pid) }).manager.watchdogMs, 1000)
  assert.equal(makeManager({ WATCHDOG_USEC: '1000000' }).manager.watchdogMs, undefined)
  assert.equal(makeManager({ NOTIFY_SOCKET: '/nowhere' }).manager.watchdogMs, undefined)
})

test('without a service manager nothing is said and nothing is started', async () => {
  const { manager, logged } = makeManager({ PATH: '/nowhere' })
  await manager.tellReady('ready', never)
  await manager.keepWatchdog(() => true, never)
  assert.deepEqual(logged, [])
})

test('what cannot be said is logged once and harms nothing', async () => {
  const { manager, logged } = makeManager({ NOTIFY_SOCKET: '/nowhere', PATH: '/nowhere' })
  await manager.tellReady('ready', never)
  await manager.tellStopping('stopping', never)
  assert.equal(logged.length, 1)
  assert.match(logged[0] ?? '', /could not notify the service manager/)
})

test('a service manager that does not take the message is given up', needs('systemd'), async () => {
  await using listener = await listen('is deaf')
  const { manager, logged } = makeManager({ NOTIFY_SOCKET: listener.socket })
  await manager.tellReady('ready', never)
  assert.equal(logged.length, 1)
})
