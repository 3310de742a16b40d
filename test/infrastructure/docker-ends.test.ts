// However a container ends, or fails to begin, the reason is told.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import test, { suite } from 'node:test'
import type { Exit, Handle, RunSpec } from '../../src/infrastructure/infrastructure.ts'
import { InfrastructureError } from '../../src/infrastructure/infrastructure.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { askEngine, pauseContainer } from './docker-image.ts'
import { type DockerSubject, makeDockerSubject, unstopped } from './docker-subject.ts'

const options = { ...needs('docker'), timeout: 90_000 }

/** Starts it, lets `meanwhile` do something to the container, and gives the exit and how long after that it was known. */
async function watchEnd(
  subject: DockerSubject,
  spec: RunSpec,
  meanwhile: (id: string) => Promise<unknown> = async () => {},
): Promise<{ exit: Exit; tookMs: number }> {
  const handle = await subject.infrastructure.submit(spec, unstopped)
  const lines: string[] = []
  const waiting = subject.infrastructure.wait(handle, batch => void lines.push(...batch), unstopped)
  await until(() => lines.length > 0)
  await meanwhile(handle.identifier.slice(handle.identifier.lastIndexOf(':') + 1))
  const began = performance.now()
  return { exit: await waiting, tookMs: performance.now() - began }
}

async function refusal(subject: DockerSubject, spec: RunSpec): Promise<InfrastructureError> {
  const error: unknown = await subject.infrastructure.submit(spec, unstopped).then(
    () => undefined,
    failure => failure,
  )
  assert.ok(error instanceof InfrastructureError, `instead: ${String(error)}`)
  return error
}

/** Of its first process, as this machine sees it. */
async function readPid(id: string): Promise<number> {
  return Number(Object((await askEngine(`/containers/${id}/json`)).State).Pid)
}

async function containersOf(subject: DockerSubject): Promise<number> {
  return (await subject.engine.list([`io.rigel.agent=${subject.agentPrefix}`], true, unstopped)).length
}

// Most of their time they wait.
suite('ends of containers', { ...needs('docker'), concurrency: 4 }, () => {
  test('a container over its memory limit is said to have run out of memory, and which limit', options, async () => {
    await using subject = await makeDockerSubject({ settings: { mem_limit: '16m', memswap_limit: '16m' } })
    const { exit } = await watchEnd(subject, await subject.spec('echo begin; exec tail /dev/zero'))
    assert.equal(exit.kind === 'exited' && exit.signal, 'SIGKILL')
    assert.match(exit.reason ?? '', /out of memory: .* limit of 16 MiB \(OOMKilled\)/)
  })

  test('a container that somebody removed is gone, within 15 s, and no code is made up', options, async () => {
    await using subject = await makeDockerSubject()
    const { exit, tookMs } = await watchEnd(subject, await subject.spec('echo begin; sleep 60'), async id => {
      await subject.engine.kill(id, unstopped)
      // At once, so that the driver may or may not see it between the two.
      await subject.engine.remove(id, unstopped)
    })
    assert.ok(tookMs < 15_000)
    if (exit.kind === 'vanished') assert.match(exit.reason, /removed by somebody else/)
    else assert.match(exit.reason ?? '', /SIGKILL was sent to it through the engine/)
    assert.deepEqual(exit.outputTail, ['begin'])
  })

  test('a container that was removed while no agent watched is reported as gone', options, async () => {
    await using subject = await makeDockerSubject()
    const handle = await subject.infrastructure.submit(await subject.spec('sleep 60'), unstopped)
    const id = handle.identifier.slice(handle.identifier.lastIndexOf(':') + 1)
    await subject.engine.stop(id, 0, unstopped)
    await subject.engine.remove(id, unstopped)
    const next = subject.startAnew()
    const found = await next.reattach(handle, handle, unstopped)
    assert.ok(found, 'it was started, so it must not be started again')
    const exit = await next.wait(found, () => {}, unstopped)
    assert.equal(exit.kind, 'vanished')
    assert.match(exit.reason ?? '', /removed by somebody else/)
  })

  test('a signal that somebody sent through the engine is named', options, async () => {
    await using subject = await makeDockerSubject()
    const { exit } = await watchEnd(subject, await subject.spec('echo begin; exec sleep 60'), async id => {
      await subject.engine.kill(id, unstopped)
    })
    assert.equal(exit.kind === 'exited' && exit.signal, 'SIGKILL')
    assert.match(exit.reason ?? '', /^SIGKILL was sent to it through the engine; /)
  })

  test('codes of shells are explained', options, async () => {
    await using subject = await makeDockerSubject()
    const { exit } = await watchEnd(subject, await subject.spec('echo begin; no-such-command'))
    assert.equal(exit.kind === 'exited' && exit.statusCode, 127)
    assert.match(exit.reason ?? '', /exit code 127 means .* not found/)
    assert.match(exit.outputTail.join('\n'), /no-such-command/)
  })

  test('an image that lacks Prefect is named when the engine of the run says so', options, async () => {
    await using subject = await makeDockerSubject()
    const script =
      "echo '/usr/bin/python3: Error while finding module specification'; echo 'No module named prefect'; exit 1"
    const { exit } = await watchEnd(subject, await subject.spec(script))
    assert.match(exit.reason ?? '', /image "rigel.test\/busybox:1" lacks Prefect/)
  })

  const failingStarts: readonly (readonly [string, readonly string[], RegExp])[] = [
    ['python', ['python', '-m', 'prefect.engine'], /Could not start "python" in image .* the image lacks Python/],
    ['prefect', ['prefect', 'flow-run', 'execute'], /the image lacks Prefect \(no "prefect" on its PATH\)/],
    ['a command', ['no-such-command'], /there is no such command in the image/],
    ['permission', ['/etc/passwd'], /may not be executed there \(permission denied\)/],
  ]

  for (const [what, command, expected] of failingStarts) {
    test(`a start that fails for want of ${what} says so and leaves no container behind`, options, async () => {
      await using subject = await makeDockerSubject()
      const error = await refusal(subject, await subject.spec('', { command }))
      assert.match(error.message, expected)
      assert.equal(error.blame, 'run')
      assert.equal(await containersOf(subject), 0)
    })
  }

  test('a port that is taken ends the run with that reason', options, async () => {
    await using subject = await makeDockerSubject()
    const settings = { container_create_kwargs: { ports: { '80/tcp': 18_099 } } }
    const first = await subject.infrastructure.submit(await subject.spec('sleep 60', { settings }), unstopped)
    const error = await refusal(subject, await subject.spec('sleep 60', { settings }))
    assert.match(error.message, /a port that it publishes is taken/)
    assert.equal(error.blame, 'run')
    assert.equal(await containersOf(subject), 1)
    await subject.infrastructure.kill(first, 0, unstopped)
  })

  test('a name that a stranger has taken does not stop the run, and the stranger is left alone', options, async () => {
    await using subject = await makeDockerSubject()
    const spec = await subject.spec('exit 3')
    const name = `test-run-${spec.attempt}`
    const stranger = await subject.engine.create(name, { Image: 'rigel.test/busybox:1', Cmd: ['true'] }, unstopped)
    try {
      const handle = await subject.infrastructure.submit(spec, unstopped)
      const exit = await subject.infrastructure.wait(handle, () => {}, unstopped)
      assert.equal(exit.kind === 'exited' && exit.statusCode, 3)
      assert.equal((await subject.engine.inspect(stranger, unstopped))?.State.Status, 'created')
    } finally {
      await subject.engine.remove(stranger, unstopped)
    }
  })

  test('a network that does not exist ends the run with that reason', options, async () => {
    await using subject = await makeDockerSubject({ settings: { networks: ['no-such-network'] } })
    const error = await refusal(subject, await subject.spec('true'))
    assert.match(error.message, /no-such-network/)
    assert.equal(error.blame, 'run')
    assert.equal(await containersOf(subject), 0)
  })

  const halts: readonly (readonly [string, (id: string) => Promise<unknown>])[] = [
    // From outside: within its own namespace, a first process cannot be stopped.
    ['whose first process is stopped', async id => process.kill(await readPid(id), 'SIGSTOP')],
    ['that is paused', pauseContainer],
  ]
  for (const [what, halt] of halts) {
    test(`kill ends a container ${what}`, { ...options, ...needs('docker', 'root') }, async () => {
      await using subject = await makeDockerSubject()
      // Would end by SIGTERM, if only it could.
      const spec = await subject.spec('trap "exit 5" TERM; echo begin; while :; do sleep 0.1; done')
      const { exit, tookMs } = await watchEnd(subject, spec, async id => {
        await halt(id)
        const handle = { type: 'docker-container', identifier: `http+docker://localhost:${id}`, ...spec }
        await subject.infrastructure.kill(handle, 2, unstopped)
      })
      assert.equal(exit.kind, 'exited')
      if (what.includes('stopped')) assert.equal(exit.kind === 'exited' && exit.signal, 'SIGKILL')
      assert.ok(tookMs < 15_000)
    })
  }

  test(
    'a submission that is stopped at any moment leaves nothing that runs, or something that is found',
    options,
    async () => {
      await using subject = await makeDockerSubject()
      for (const afterMs of [0, 5, 15, 30, 60, 100, 150, 250]) {
        const spec = await subject.spec('sleep 60')
        const handle = await subject.infrastructure
          .submit(spec, AbortSignal.timeout(afterMs))
          .catch(() => subject.infrastructure.reattach(spec, undefined, unstopped))
        if (handle) await subject.infrastructure.kill(handle, 0, unstopped)
        const running = await subject.engine.list([`io.rigel.flow-run-id=${spec.flowRunId}`], false, unstopped)
        assert.equal(running.length, 0, `stopped after ${afterMs} ms`)
      }
    },
  )

  test('auto_remove is carried out by release, when the exit has been read', options, async () => {
    await using subject = await makeDockerSubject({ settings: { auto_remove: true } })
    const handle = await subject.infrastructure.submit(await subject.spec('echo out; exit 3'), unstopped)
    const exit = await subject.infrastructure.wait(handle, () => {}, unstopped)
    assert.equal(exit.kind === 'exited' && exit.statusCode, 3)
    assert.equal(await containersOf(subject), 1)
    await subject.startAnew().release(handle, unstopped)
    assert.equal(await containersOf(subject), 0)
  })

  test('without auto_remove, release keeps the container', options, async () => {
    await using subject = await makeDockerSubject()
    const handle = await subject.infrastructure.submit(await subject.spec('exit 0'), unstopped)
    await subject.infrastructure.wait(handle, () => {}, unstopped)
    await subject.infrastructure.release(handle, unstopped)
    assert.equal(await containersOf(subject), 1)
  })

  test(
    'as runs end, finished containers beyond the number that is kept are removed by themselves',
    options,
    async () => {
      const cleanup = { finished: { keep: 1, maxAgeSeconds: 3_600 }, images: undefined }
      await using subject = await makeDockerSubject({ cleanup })
      const handles: Handle[] = []
      for (const driver of [subject.infrastructure, subject.infrastructure, subject.startAnew()]) {
        // As the journal does before it begins the next one: until then the container is held, as the last one is here.
        for (const { flowRunId } of handles)
          await rm(join(subject.runsDirectory, flowRunId), { recursive: true, force: true })
        const handle = await driver.submit(await subject.spec('exit 0'), unstopped)
        await driver.wait(handle, () => {}, unstopped)
        await driver.release(handle, unstopped)
        handles.push(handle)
      }
      const [, second] = handles
      assert.ok(second)
      await until(async () => (await containersOf(subject)) === 2)
      const left = await subject.engine.list([`io.rigel.flow-run-id=${second.flowRunId}`], true, unstopped)
      assert.equal(left.length, 1, 'the newer of the two that nobody holds')
    },
  )

  test('what has grown too old is removed also while no run ends', options, async () => {
    const cleanup = { finished: { keep: 9, maxAgeSeconds: 6 }, images: undefined }
    await using subject = await makeDockerSubject({ cleanup, idleSweepSeconds: 2 })
    const handle = await subject.infrastructure.submit(await subject.spec('exit 0'), unstopped)
    await subject.infrastructure.wait(handle, () => {}, unstopped)
    await subject.infrastructure.release(handle, unstopped)
    const { FinishedAt } = Object((await askEngine(`/containers/${handle.identifier.split(':').at(-1)}/json`)).State)
    await rm(join(subject.runsDirectory, handle.flowRunId), { recursive: true })
    await until(async () => (await containersOf(subject)) === 0, { everyMs: 500, timeoutMs: 60_000 })
    assert.ok(Date.now() - Date.parse(FinishedAt) >= 6_000, 'and not before')
  })

  test('the handle of another engine is not looked for in this one', options, async () => {
    await using subject = await makeDockerSubject()
    const id = randomUUID()
    const handle = {
      type: 'docker-container',
      identifier: `http://other:2375:${id}`,
      flowRunId: id,
      attempt: '',
      transitionId: '',
    }
    const exit = await subject.infrastructure.wait(handle, () => {}, unstopped)
    assert.equal(exit.kind, 'vanished')
    assert.match(exit.reason ?? '', /belongs to the engine http:\/\/other:2375/)
  })
})
