// Images are pulled once for all who wait, with the right login, and every refusal is told in the registry's own words.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { connect, createServer as createSocketServer, type Socket } from 'node:net'
import { join } from 'node:path'
import test, { after, before } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { InfrastructureError } from '../../src/infrastructure/infrastructure.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { OwnEngine } from './docker-engine.ts'
import { hasImage, pushImage, removeImage, tagImage } from './docker-image.ts'
import { DockerProxy } from './docker-proxy.ts'
import {
  busybox,
  type DockerSubject,
  dockerHost,
  makeDockerSubject,
  type SubjectOptions,
  unstopped,
} from './docker-subject.ts'

const run = promisify(execFile)
const engines = join(import.meta.dirname, '../support/engines')
const registryScript = join(engines, 'registry.sh')
// The registry of the tests is installed from Debian's packages.
const needed = needs('docker', 'root')
const options = { ...needed, timeout: 120_000 }

const registry = { host: '', username: '', password: '' }
const pulled = () => `${registry.host}/team/flow:1`

before(async () => {
  if (needed.skip !== false) return
  const { stdout } = await run(registryScript, ['start'])
  const value = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(stdout)?.[1] ?? ''
  registry.host = value('RIGEL_TEST_REGISTRY')
  registry.username = value('RIGEL_TEST_REGISTRY_USER')
  registry.password = value('RIGEL_TEST_REGISTRY_PASSWORD')
  await tagImage(busybox, pulled())
  await pushImage(pulled(), registry)
  await removeImage(pulled())
})

after(async () => {
  if (needed.skip !== false) return
  await removeImage(pulled())
  await run(registryScript, ['stop'])
})

const login = (password = registry.password) => ({
  image_registry: { username: registry.username, password, registry_url: registry.host },
})

async function submit(settings: Record<string, unknown>, more: SubjectOptions = {}) {
  await using subject = await makeDockerSubject({ ...more, settings })
  const began = performance.now()
  const error: unknown = await subject.infrastructure.submit(await subject.spec('true'), unstopped).then(
    () => undefined,
    failure => failure,
  )
  const containers = await subject.engine.list([`io.rigel.agent=${subject.agentPrefix}`], true, unstopped)
  return { error, tookMs: performance.now() - began, containers: containers.length, log: subject.log }
}

async function refusal(settings: Record<string, unknown>, more: SubjectOptions = {}) {
  const { error, tookMs, containers } = await submit(settings, more)
  assert.ok(error instanceof InfrastructureError, `instead: ${String(error)}`)
  assert.equal(containers, 0)
  assert.ok(tookMs < 15_000, `took ${tookMs} ms`)
  return error
}

test('with the login of its registry, a missing image is pulled', options, async () => {
  await removeImage(pulled())
  assert.equal((await submit({ image: pulled(), ...login() })).error, undefined)
  assert.ok(await hasImage(pulled()))
})

test('without a login the refusal is told, and what to look at', options, async () => {
  await removeImage(pulled())
  const error = await refusal({ image: pulled() })
  assert.equal(error.blame, 'run')
  assert.match(error.message, /the registry refuses it \(.*\); does the block's image_registry hold the right login\?/)
})

test('a wrong password is refused, and stands in no message', options, async () => {
  await removeImage(pulled())
  const error = await refusal({ image: pulled(), ...login('not-the-password') })
  assert.match(error.message, /the registry refuses it/)
  assert.ok(!error.message.includes('not-the-password'))
})

test('the login of another registry is not sent', options, async () => {
  await removeImage(pulled())
  const { error, log } = await submit({
    image: pulled(),
    image_registry: { ...login().image_registry, registry_url: 'https://other.example' },
  })
  assert.match(String(error), /the registry refuses it/)
  assert.ok(log.some(line => line.includes('login for another registry')))
})

test('what docker login has left on the machine is used', options, async () => {
  await removeImage(pulled())
  await using directory = await (await import('../support/directory.ts')).makeDirectory()
  const auth = Buffer.from(`${registry.username}:${registry.password}`).toString('base64')
  const { writeFile } = await import('node:fs/promises')
  await writeFile(join(directory.path, 'config.json'), JSON.stringify({ auths: { [registry.host]: { auth } } }))
  const environment = { DOCKER_HOST: process.env.RIGEL_TEST_DOCKER_HOST ?? '', DOCKER_CONFIG: directory.path }
  assert.equal((await submit({ image: pulled() }, { environment })).error, undefined)
})

test('an unknown tag is told', options, async () => {
  const error = await refusal({ image: `${registry.host}/team/flow:no-such-tag`, ...login() })
  assert.equal(error.blame, 'run')
  assert.match(error.message, /there is no such image or tag \(.*manifest unknown/)
})

test('a registry whose name cannot be found is tried three times', options, async () => {
  const error = await refusal({ image: 'rigel.test/nobody:1' })
  assert.equal(error.blame, 'run')
  assert.match(error.message, /Could not pull image "rigel.test\/nobody:1": .*tried 3 times/)
})

test('a registry that accepts connections and says nothing is given up', options, async () => {
  const sockets = new Set<Socket>()
  const server = createSocketServer(socket => sockets.add(socket)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    const address = server.address()
    const port = typeof address === 'object' ? address?.port : undefined
    const error = await refusal({ image: `127.0.0.1:${port}/x:1` }, { pullStallSeconds: 3 })
    assert.match(error.message, /no progress for 3 s/)
  } finally {
    for (const socket of sockets) socket.destroy()
    server.close()
  }
})

test('a stop during a pull ends the submission at once and starts nothing', options, async () => {
  const sockets = new Set<Socket>()
  const server = createSocketServer(socket => sockets.add(socket)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    await using subject = await makeDockerSubject()
    const address = server.address()
    const port = typeof address === 'object' ? address?.port : undefined
    const spec = await subject.spec('true', { settings: { image: `127.0.0.1:${port}/x:1` } })
    const stop = new AbortController()
    const submitting = subject.infrastructure.submit(spec, stop.signal)
    submitting.catch(() => {})
    await until(() => sockets.size > 0)
    const began = performance.now()
    stop.abort(new Error('cancelled'))
    await assert.rejects(submitting, /cancelled/)
    // Without the stop, a minute of silence would end it.
    assert.ok(performance.now() - began < 15_000)
    assert.equal(await subject.infrastructure.reattach(spec, undefined, unstopped), undefined)
  } finally {
    for (const socket of sockets) socket.destroy()
    server.close()
  }
})

test('a registry that fails in passing is asked again', options, async () => {
  await removeImage(pulled())
  await using proxy = await DockerProxy.start()
  proxy.on(/^POST \/images\/create/, { kind: 'refuse', status: 500 }, 1)
  proxy.on(/^POST \/images\/create/, { kind: 'drop' }, 1)
  const { error } = await submit({ image: pulled(), ...login() }, { environment: proxy.environment })
  assert.equal(error, undefined)
  assert.equal(proxy.count(/^POST \/images\/create/), 3)
})

test('a registry that breaks answers off is told after three tries', options, async () => {
  const server = createServer((_, answer) => answer.destroy()).listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    const address = server.address()
    const port = typeof address === 'object' ? address?.port : undefined
    assert.match((await refusal({ image: `127.0.0.1:${port}/x:1` })).message, /tried 3 times/)
  } finally {
    server.close()
  }
})

async function submitTogether(subject: DockerSubject, count: number): Promise<void> {
  const specs = await Promise.all(Array.from({ length: count }, () => subject.spec('true')))
  await Promise.all(specs.map(spec => subject.infrastructure.submit(spec, unstopped)))
}

test('runs that wait for the same image share one pull', options, async () => {
  await removeImage(pulled())
  await using proxy = await DockerProxy.start()
  proxy.on(/^POST \/images\/create/, { kind: 'delay', ms: 500 })
  const settings = { image: pulled(), ...login() }
  await using subject = await makeDockerSubject({ environment: proxy.environment, settings })
  await submitTogether(subject, 6)
  assert.equal(proxy.count(/^POST \/images\/create/), 1)
})

test('a slow pull shows in the log how far it has come', options, async () => {
  await using directory = await makeDirectory()
  const mebibytes = 4
  const name = `team/slow:${process.pid}`
  await pushNoise(directory.path, `${registry.host}/${name}`, mebibytes)
  await removeImage(`${registry.host}/${name}`)
  await using slow = await startSlowRegistry(mebibytes * 1_048_576, 16)
  const image = `127.0.0.1:${slow.port}/${name}`
  try {
    const { username, password } = registry
    const image_registry = { username, password, registry_url: `127.0.0.1:${slow.port}` }
    const { log } = await submit({ image, image_registry })
    const told: unknown[] = log.map(line => JSON.parse(line)).filter(line => line.msg === 'pulling image')
    const halfway = told.some(line => {
      const { downloaded_mib: had, known_mib: all, image: of } = Object(line)
      return of === image && had > 0 && had < mebibytes && all === mebibytes
    })
    assert.ok(halfway, JSON.stringify(told))
  } finally {
    await removeImage(image)
  }
})

/** The registry of the tests behind a line on which so many bytes take so many seconds. */
async function startSlowRegistry(bytes: number, seconds: number) {
  const [host, port] = registry.host.split(':')
  const sockets = new Set<Socket>()
  const server = createSocketServer(client => {
    const upstream = connect(Number(port), host)
    for (const socket of [client, upstream]) sockets.add(socket.on('error', () => undefined))
    client.pipe(upstream)
    const pace = async (chunks: AsyncIterable<Buffer>) => {
      for await (const chunk of chunks) {
        client.write(chunk)
        await delay((1000 * seconds * chunk.length) / bytes)
      }
      client.end()
    }
    pace(upstream).catch(() => client.destroy())
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

test('policy NEVER does not pull, and says that it forbids it', options, async () => {
  await removeImage(pulled())
  const error = await refusal({ image: pulled(), image_pull_policy: 'NEVER', ...login() })
  assert.match(error.message, /policy NEVER forbids pulling it/)
  assert.ok(!(await hasImage(pulled())))
})

test('policy ALWAYS asks the registry for an image that is there', options, async () => {
  await using proxy = await DockerProxy.start()
  const settings = { image: pulled(), image_pull_policy: 'ALWAYS', ...login() }
  await submit(settings, { environment: proxy.environment })
  assert.equal((await submit(settings, { environment: proxy.environment })).error, undefined)
  assert.equal(proxy.count(/^POST \/images\/create/), 2)
})

test('IF_NOT_PRESENT does not ask the registry for an image that is there', options, async () => {
  await using proxy = await DockerProxy.start()
  assert.equal((await submit({ image: busybox }, { environment: proxy.environment })).error, undefined)
  assert.equal(proxy.count(/^POST \/images\/create/), 0)
})

test(
  'an image that was pulled for a run is removed on request, one that was there before is not',
  options,
  async () => {
    const settings = { image: pulled(), image_pull_policy: 'ALWAYS', ...login() }
    const rules = { finished: { keep: 9, maxAgeSeconds: 999 }, images: { keep: 0, maxAgeSeconds: 0 } }
    const request = { ...rules, isHeld: () => false, dryRun: false }
    const finish = async (subject: DockerSubject) => {
      const handle = await subject.infrastructure.submit(await subject.spec('true'), unstopped)
      await subject.infrastructure.wait(handle, () => {}, unstopped)
      const collect = () => subject.startAnew().collect({ ...request, agentPrefix: subject.agentPrefix }, unstopped)
      return { collect, id: handle.identifier.slice(handle.identifier.lastIndexOf(':') + 1) }
    }
    await removeImage(pulled())
    {
      await using subject = await makeDockerSubject({ settings })
      const { collect, id } = await finish(subject)
      assert.deepEqual(await collect(), [], 'its container still uses it')
      await subject.engine.remove(id, unstopped)
      const removed = await collect()
      assert.deepEqual(
        removed.map(({ kind, name }) => [kind, name]),
        [['image', pulled()]],
      )
      assert.equal(await hasImage(pulled()), false)
      assert.deepEqual(await collect(), [])
    }
    await tagImage(busybox, pulled())
    {
      await using subject = await makeDockerSubject({ settings })
      const { collect, id } = await finish(subject)
      await subject.engine.remove(id, unstopped)
      assert.deepEqual(await collect(), [])
      assert.equal(await hasImage(pulled()), true)
    }
  },
)

test('an image that somebody has replaced since it was pulled is not removed', options, async () => {
  await removeImage(pulled())
  await using subject = await makeDockerSubject({ settings: { image: pulled(), ...login() } })
  const handle = await subject.infrastructure.submit(await subject.spec('true'), unstopped)
  await subject.infrastructure.wait(handle, () => {}, unstopped)
  await subject.engine.remove(handle.identifier.slice(handle.identifier.lastIndexOf(':') + 1), unstopped)
  const { makeImageWithUser } = await import('./docker-image.ts')
  await makeImageWithUser(pulled())
  const rules = { finished: { keep: 9, maxAgeSeconds: 999 }, images: { keep: 0, maxAgeSeconds: 0 } }
  const request = { ...rules, agentPrefix: subject.agentPrefix, isHeld: () => false, dryRun: false }
  assert.deepEqual(await subject.infrastructure.collect(request, unstopped), [])
  assert.equal(await hasImage(pulled()), true)
})

test('an image for which the engine has no room blames the host, with the reason', options, async () => {
  await using directory = await makeDirectory()
  const home = join(directory.path, 'e')
  // The engine's data lie on a small disk of memory; the image is one layer of noise that does not fit.
  await mkdir(join(home, 'full', 'data'), { recursive: true })
  await run('mount', ['-t', 'tmpfs', '-o', 'size=48m', 'none', join(home, 'full', 'data')])
  const big = `${registry.host}/team/big:${process.pid}`
  try {
    await pushNoise(directory.path, big, 64)
    await using engine = await OwnEngine.start({ name: 'full', subnet: '172.30.92', home })
    await using subject = await makeDockerSubject({
      environment: { DOCKER_HOST: engine.host },
      host: engine.host,
      settings: { image: big, ...login() },
    })
    const error: unknown = await subject.infrastructure.submit(await subject.spec('true'), unstopped).catch(e => e)
    assert.ok(error instanceof InfrastructureError, `instead: ${String(error)}`)
    assert.match(error.message, /Could not pull image .*no space left on device/)
    assert.equal(error.blame, 'host')
  } finally {
    // Where the engine came so far, its stop has done so.
    await run('umount', ['-l', join(home, 'full', 'data')]).catch(() => undefined)
    await removeImage(big)
  }
})

/** Makes an image of `mebibytes` that cannot be compressed, and pushes it. */
async function pushNoise(folder: string, reference: string, mebibytes: number): Promise<void> {
  await mkdir(join(folder, 'root'))
  await writeFile(join(folder, 'root', 'noise'), randomBytes(mebibytes * 1_048_576))
  await run('tar', ['-C', join(folder, 'root'), '-cf', join(folder, 'layer.tar'), '.'])
  const archive = join(folder, 'image.tar')
  await run(join(engines, 'images.sh'), ['pack', reference, archive, '{"Cmd":["sh"]}', join(folder, 'layer.tar')])
  await run('docker', ['-H', dockerHost, 'load', '-q', '-i', archive])
  await pushImage(reference, registry)
}
