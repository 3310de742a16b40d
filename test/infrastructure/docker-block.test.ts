// Each field of Prefect's docker-container block, and what is passed through beyond it, as the real engine has it then.

import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import test from 'node:test'
import { buildCreatePlan } from '../../src/infrastructure/docker-create.ts'
import { readDockerSettings } from '../../src/infrastructure/docker-settings.ts'
import { InfrastructureError, type RunSpec } from '../../src/infrastructure/infrastructure.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { askEngine, makeNetwork, removeNetwork } from './docker-image.ts'
import { busybox, makeDockerSubject, unstopped } from './docker-subject.ts'

const options = { ...needs('docker'), timeout: 90_000 }

/** Runs `script` to its end, and gives what the engine says of the container and what it printed. */
async function run(settings: Record<string, unknown>, script = 'true', spec: Partial<RunSpec> = {}) {
  await using subject = await makeDockerSubject({ settings })
  const handle = await subject.infrastructure.submit(await subject.spec(script, spec), unstopped)
  const lines: string[] = []
  const exit = await subject.infrastructure.wait(handle, batch => void lines.push(...batch), unstopped)
  const info = await askEngine(`/containers/${handle.identifier.slice(handle.identifier.lastIndexOf(':') + 1)}/json`)
  return { exit, lines, info, log: subject.log.join('\n') }
}

/** The part of `whole` that `expected` names. */
function pick(whole: unknown, expected: unknown): unknown {
  if (typeof expected !== 'object' || expected === null || Array.isArray(expected)) return whole
  const fields = new Map(Object.entries(whole ?? {}))
  return Object.fromEntries(Object.entries(expected).map(([key, value]) => [key, pick(fields.get(key), value)]))
}

const blocks: readonly (readonly [string, Record<string, unknown>, Record<string, unknown>])[] = [
  [
    'memory limits, as texts and numbers',
    { mem_limit: '64m', memswap_limit: 134_217_728 },
    { HostConfig: { Memory: 67_108_864, MemorySwap: 134_217_728 } },
  ],
  ['unlimited swap', { mem_limit: 67_108_864, memswap_limit: -1 }, { HostConfig: { MemorySwap: -1 } }],
  [
    'truth as a text, as an override may leave it',
    { auto_remove: 'True' },
    { Config: { Labels: { 'io.rigel.auto-remove': 'true' } } },
  ],
  ['network mode', { network_mode: 'none' }, { HostConfig: { NetworkMode: 'none' } }],
  ['volumes', { volumes: ['/etc:/mnt/etc:ro'] }, { HostConfig: { Binds: ['/etc:/mnt/etc:ro'] } }],
  ['no restart and no removal by the engine', { auto_remove: true }, { HostConfig: { AutoRemove: false } }],
]

for (const [what, settings, expected] of blocks) {
  test(`the block sets ${what}`, options, async () => {
    const { info, exit } = await run(settings)
    assert.equal(exit.kind === 'exited' && exit.statusCode, 0)
    assert.deepEqual(pick(info, expected), expected)
  })
}

const beyond: readonly (readonly [string, Record<string, unknown>, Record<string, unknown>])[] = [
  ['shm_size', { container_create_kwargs: { shm_size: '96m' } }, { HostConfig: { ShmSize: 100_663_296 } }],
  ['ipc', { container_create_kwargs: { ipc: 'private' } }, { HostConfig: { IpcMode: 'private' } }],
  ['user', { container_create_kwargs: { user: '1000:1000' } }, { Config: { User: '1000:1000' } }],
  ['cpus', { container_create_kwargs: { cpus: 0.5 } }, { HostConfig: { NanoCpus: 500_000_000 } }],
  [
    'ulimits',
    { container_create_kwargs: { ulimits: [{ Name: 'nofile', Soft: 64, Hard: 128 }] } },
    { HostConfig: { Ulimits: [{ Name: 'nofile', Soft: 64, Hard: 128 }] } },
  ],
  [
    'fields of the API, of the container and of its host',
    { container_create: { Hostname: 'flow', HostConfig: { Init: true, PidsLimit: 50, CapDrop: ['NET_RAW'] } } },
    { Config: { Hostname: 'flow' }, HostConfig: { Init: true, PidsLimit: 50, CapDrop: ['NET_RAW'] } },
  ],
]

for (const [what, settings, expected] of beyond) {
  test(`beyond the block, the engine gets ${what}`, options, async () => {
    const { info } = await run({ network_mode: 'none', ...settings })
    assert.deepEqual(pick(info, expected), expected)
  })
}

test('a privileged container is asked for', () => {
  // Not every machine lets one be started.
  const attempt = { flowRunId: 'f', transitionId: '12345678-aaaa', attempt: 'aaaaaaaa' }
  const spec = { ...attempt, name: 'x', settings: {}, command: ['true'], env: {}, unsetEnv: [], labels: {}, files: {} }
  const facts = { engineVersion: '20.10.24', generation: 0, platform: 'linux' }
  const settings = readDockerSettings({ privileged: true })
  const { body } = buildCreatePlan({ ...spec, workspace: undefined }, settings, facts)
  assert.equal(Object(body.HostConfig).Privileged, true)
})

test('a GPU is asked for, and its absence is told', options, async () => {
  await using subject = await makeDockerSubject({ settings: { container_create_kwargs: { gpus: 'all' } } })
  const error: unknown = await subject.infrastructure.submit(await subject.spec('true'), unstopped).catch(e => e)
  assert.ok(error instanceof InfrastructureError)
  assert.match(error.message, /could not select device driver .*gpu/)
  assert.equal(error.blame, 'run')
})

const refusals: readonly (readonly [Record<string, unknown>, RegExp])[] = [
  [{ volumes: ['no-colon'] }, /"volumes\.0": must be source:target/],
  [{ networks: ['a'], network_mode: 'host' }, /"network_mode" and "networks" exclude each other/],
  [{ memswap_limit: '1g' }, /"memswap_limit" needs "mem_limit"/],
  [{ mem_limit: 'much' }, /"mem_limit": must be bytes/],
  [{ image_pull_policy: 'Always' }, /"image_pull_policy"/],
  [{ container_create_kwargs: { no_such: 1 } }, /"container_create_kwargs\.no_such" .*is not known/],
  [{ container_create_kwargs: { name: 'x' } }, /the agent names containers, so that none starts twice/],
  [{ container_create: { HostConfig: { RestartPolicy: {} } } }, /the agent starts a run exactly once/],
  [{ container_create: { ShmSize: 1 } }, /belongs into "HostConfig"/],
  [{ container_create: { Hostnaam: 'x' } }, /is no field of Docker's create call/],
  [{ container_create_kwargs: { user: ['root'] } }, /"container_create_kwargs\.user" .*must be a text/],
]

for (const [settings, expected] of refusals) {
  test(`a block with ${JSON.stringify(settings)} is refused, with the field`, options, async () => {
    await using subject = await makeDockerSubject({ settings })
    const error: unknown = await subject.infrastructure.submit(await subject.spec('true'), unstopped).catch(e => e)
    assert.ok(error instanceof InfrastructureError, `instead: ${String(error)}`)
    assert.match(error.message, expected)
    assert.equal(error.blame, 'run')
  })
}

test('name, labels, variables and command are those of the run, and the log holds no variable', options, async () => {
  const script = 'echo "$GREETING"; echo "$0 $1"'
  const { info, lines, log } = await run({}, script, {
    command: ['/bin/sh', '-c', script, 'sh', 'second word'],
    name: 'My Rün/1!',
    env: { GREETING: 'hush-hush', PREFECT__FLOW_RUN_ID: 'x' },
    unsetEnv: ['PATH'],
    labels: { 'prefect.io/flow-run-name': 'brave-otter', 'io.example.team': 'data' },
  })
  assert.match(String(info.Name), /^\/My-Run-1-[0-9a-f]{8}$/)
  const { Labels } = Object(info.Config)
  assert.equal(Labels['prefect.io/flow-run-name'], 'brave-otter')
  assert.equal(Labels['io.example.team'], 'data')
  assert.match(Labels['io.rigel.transition-id'], /^[0-9a-f-]{36}$/)
  assert.deepEqual(lines, ['hush-hush', 'sh second word'])
  assert.ok(!Object(info.Config).Env.some((entry: string) => entry.startsWith('PATH=')), 'the image has one')
  assert.ok(!log.includes('hush-hush'))
})

test('a run is in all of its networks', options, async () => {
  const names = ['one', 'two'].map(part => `rigel-test-${part}-${process.pid}`)
  await Promise.all(names.map(makeNetwork))
  try {
    const { info } = await run({ networks: names })
    assert.deepEqual(Object.keys(Object(info.NetworkSettings).Networks).toSorted(), names.toSorted())
  } finally {
    await Promise.all(names.map(removeNetwork))
  }
})

/** A server on this machine that answers on one address only. */
async function listen(host: string, port = 0) {
  const server = createServer((_, answer) => answer.end('reached\n'))
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  server.listen(port, host, resolve)
  await promise
  // eslint-disable-next-line typescript/no-unsafe-type-assertion -- a TCP server has a port
  return { port: (server.address() as AddressInfo).port, [Symbol.dispose]: () => void server.close() }
}

const fetchApi = 'echo "$PREFECT_API_URL"; wget -q -O - "$PREFECT_API_URL"'

test("an API on the machine's loopback is reached through the host's own network", options, async () => {
  using server = await listen('127.0.0.1')
  const url = `http://127.0.0.1:${server.port}/api`
  const { lines, info } = await run({}, fetchApi, { env: { PREFECT_API_URL: url } })
  assert.deepEqual(lines, [url, 'reached'])
  assert.equal(Object(info.HostConfig).NetworkMode, 'host')
})

test('from the bridge, an API on the loopback is looked for at host.docker.internal', options, async () => {
  const network = await askEngine('/networks/bridge')
  const [{ Gateway }] = Object(network.IPAM).Config
  using server = await listen(Gateway)
  const env = { PREFECT_API_URL: `http://localhost:${server.port}/api` }
  const { lines } = await run({ network_mode: 'bridge' }, fetchApi, { env })
  assert.deepEqual(lines, [`http://host.docker.internal:${server.port}/api`, 'reached'])
})

test("the block's own API URL is left as it is", options, async () => {
  const env = { PREFECT_API_URL: 'http://localhost:4200/api' }
  const { lines } = await run({ network_mode: 'none', env }, 'echo "$PREFECT_API_URL"', { env })
  assert.deepEqual(lines, ['http://localhost:4200/api'])
})

test('volumes may be folders of the machine, to be written to', options, async () => {
  await using directory = await makeDirectory()
  const { lines } = await run({ volumes: [`${directory.path}:/out`] }, 'echo kept > /out/file; cat /out/file')
  assert.deepEqual(lines, ['kept'])
  const { readFile } = await import('node:fs/promises')
  assert.equal(await readFile(join(directory.path, 'file'), 'utf8'), 'kept\n')
})

test('the image keeps its entrypoint, unless the block has another', options, async () => {
  const { info } = await run({ container_create_kwargs: { entrypoint: ['env'] } })
  assert.deepEqual(Object(info.Config).Entrypoint, ['env'])
  assert.equal(Object(info.Config).Image, busybox)
})
