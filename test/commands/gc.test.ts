// `rigel gc` clears away what its agent has left with a real Docker engine, and nothing else.

import assert from 'node:assert/strict'
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { Handle, RunSpec } from '../../src/infrastructure/infrastructure.ts'
import {
  busybox,
  type DockerSubject,
  dockerHost,
  makeDockerSubject,
  unstopped,
} from '../infrastructure/docker-subject.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { runCli } from './support.ts'

const options = { ...needs('docker'), timeout: 120_000 }

interface Stage extends AsyncDisposable {
  readonly subject: DockerSubject
  /** Starts a run of the agent and waits for its end; its folder is removed, as the journal does when it was reported. */
  finish(script: string): Promise<Handle>
  spec(script: string): Promise<RunSpec>
  gc(...args: readonly string[]): ReturnType<typeof runCli>
  /** Without a type: whatever engine there may be. */
  gcAll(): ReturnType<typeof runCli>
  /** Names of containers that are still there. */
  names(): Promise<readonly string[]>
  readonly stateDirectory: string
}

async function openStage(environment: Readonly<Record<string, string>> = {}): Promise<Stage> {
  const stack = new AsyncDisposableStack()
  const name = `gc-${randomBytes(4).toString('hex')}`
  const prefix = createHash('sha256').update(name).digest('hex').slice(0, 8)
  const directory = stack.use(await makeDirectory())
  const stateDirectory = join(directory.path, 'state')
  const subject = stack.use(await makeDockerSubject({ agentPrefix: prefix }))
  await mkdir(join(stateDirectory, 'runs'), { recursive: true })
  const env = { DOCKER_HOST: dockerHost, RIGEL_STATE_DIR: stateDirectory, RIGEL_AGENT_NAME: name, ...environment }
  return {
    subject,
    stateDirectory,
    spec: script => subject.spec(script),
    finish: async script => {
      const handle = await subject.infrastructure.submit(await subject.spec(script), unstopped)
      await subject.infrastructure.wait(handle, () => {}, unstopped)
      await rm(join(subject.runsDirectory, handle.flowRunId), { recursive: true })
      return handle
    },
    gc: (...args) => runCli(['gc', '--type', 'docker-container', ...args], { env }),
    gcAll: () => runCli(['gc', '--all'], { env }),
    names: async () => {
      const all = await subject.engine.list([`io.rigel.agent=${prefix}`], true, unstopped)
      return all.map(({ Names }) => (Names[0] ?? '').slice(1)).toSorted()
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

const nameOf = ({ attempt }: Handle | RunSpec) => `test-run-${attempt}`

test('the newest finished containers are kept, the others go, and a dry run only says so', options, async () => {
  await using stage = await openStage({ RIGEL_CLEANUP_KEEP_FINISHED: '1' })
  const first = await stage.finish('exit 0')
  const second = await stage.finish('exit 1')
  const last = await stage.finish('exit 0')
  const dry = await stage.gc('--dry-run', '--output', 'json')
  assert.equal(dry.code, 0, dry.stderr)
  const answer = JSON.parse(dry.stdout)
  assert.equal(answer.dry_run, true)
  assert.deepEqual(
    answer.removed.map((one: { name: string; flowRunId: string; kind: string }) => [one.kind, one.name, one.flowRunId]),
    [first, second].map(handle => ['container', nameOf(handle), handle.flowRunId]),
  )
  assert.equal((await stage.names()).length, 3)
  const done = await stage.gc()
  assert.match(done.stdout, /removed 2\n$/)
  assert.deepEqual(await stage.names(), [nameOf(last)])
})

test('what runs, what the journal holds, what others own stays', options, async () => {
  await using stage = await openStage()
  const { subject } = stage
  const running = await stage.spec('sleep 600')
  await subject.infrastructure.submit(running, unstopped)
  const held = await stage.finish('exit 0')
  await mkdir(join(stage.stateDirectory, 'runs', held.flowRunId))
  await stage.finish('exit 0')
  await using other = await makeDockerSubject()
  const theirs = await other.infrastructure.submit(await other.spec('exit 0'), unstopped)
  await other.infrastructure.wait(theirs, () => {}, unstopped)
  const stranger = await subject.engine.create(
    `gc-stranger-${randomUUID()}`,
    { Image: busybox, Cmd: ['true'] },
    unstopped,
  )
  try {
    const done = await stage.gc('--all')
    assert.equal(done.code, 0, done.stderr)
    assert.match(done.stdout, /removed 1\n$/)
    assert.deepEqual(await stage.names(), [nameOf(running), nameOf(held)].toSorted())
    assert.ok(await other.engine.inspect(theirs.identifier.slice(theirs.identifier.lastIndexOf(':') + 1), unstopped))
    assert.ok(await subject.engine.inspect(stranger, unstopped))
  } finally {
    await subject.engine.remove(stranger, unstopped)
  }
})

test('a container that ended longer ago than the setting says goes, however few there are', options, async () => {
  await using stage = await openStage({ RIGEL_CLEANUP_KEEP_FINISHED_DAYS: '0.00002' })
  await stage.finish('exit 0')
  await delay(2_500)
  assert.match((await stage.gc()).stdout, /removed 1\n$/)
})

test('age is counted from the end: a container that ran for long and has just ended is not old', options, async () => {
  await using stage = await openStage()
  const { subject } = stage
  const handle = await stage.finish('sleep 4')
  const [container] = await subject.engine.list([`io.rigel.flow-run-id=${handle.flowRunId}`], true, unstopped)
  assert.ok(container)
  const request = { agentPrefix: subject.agentPrefix, images: undefined, isHeld: () => false, dryRun: true }
  for (let tookMs = Number.POSITIVE_INFINITY; tookMs > 2000; ) {
    const now = Date.now()
    // Shorter by a second than it exists, longer by three than it has been over; or two, by the end of the look. A look that
    // has taken longer says nothing.
    const maxAgeSeconds = now / 1000 - container.Created - 1
    const old = await subject.infrastructure.collect({ ...request, finished: { keep: 9, maxAgeSeconds } }, unstopped)
    tookMs = Date.now() - now
    if (tookMs <= 2000) assert.deepEqual(old, [])
  }
})

test('an engine that is not there is told, with exit code 1', options, async () => {
  await using stage = await openStage({ DOCKER_HOST: 'unix:///nonexistent/docker.sock' })
  const done = await stage.gc()
  assert.equal(done.code, 1)
  assert.match(done.stderr, /docker-container: .*socket does not exist/)
})

test('of two engines, one is away: it is named, the other is cleared, and the exit code is 1', options, async () => {
  await using stage = await openStage({ KUBECONFIG: '/nonexistent/kubeconfig' })
  await stage.finish('exit 0')
  // As an agent leaves it that has started Jobs.
  const places = [{ clusterUid: randomUUID(), namespace: 'default' }]
  await writeFile(join(stage.stateDirectory, 'kubernetes-namespaces.json'), JSON.stringify({ version: 1, places }))
  const done = await stage.gcAll()
  assert.match(done.stdout, /removed 1\n$/)
  assert.deepEqual(await stage.names(), [])
  assert.match(done.stderr, /^kubernetes-job: /m)
  assert.match(done.stderr, /rigel gc .*--type docker-container/)
  assert.doesNotMatch(done.stderr, /--type kubernetes-job/)
  assert.equal(done.code, 1)
})

test('a state directory that no agent has used is refused, and stays as it is', async () => {
  await using directory = await makeDirectory()
  const done = await runCli(['gc'], { env: { RIGEL_STATE_DIR: join(directory.path, 'none') } })
  assert.equal(done.code, 1)
  assert.match(done.stderr, /No agent has used the state directory/)
})

test('an unknown type is named', async () => {
  await using directory = await makeDirectory()
  const done = await runCli(['gc', '--type', 'podman'], { env: { RIGEL_STATE_DIR: directory.path } })
  assert.equal(done.code, 2)
  assert.match(done.stderr, /no infrastructure of type "podman"/)
})
