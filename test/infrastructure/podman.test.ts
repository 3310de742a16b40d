// The Docker driver over Podman's API: what every infrastructure promises, and how runs end there.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import test, { suite } from 'node:test'
import { InfrastructureError } from '../../src/infrastructure/infrastructure.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { testContract } from './contract.ts'
import { type DockerSubject, makeDockerSubject, unstopped } from './docker-subject.ts'

const host = process.env.RIGEL_TEST_PODMAN_HOST ?? ''
const options = { ...needs('podman'), timeout: 120_000 }
const soonMs = 15_000

/** Without a network of their own, for what Podman sets up there is no concern of the driver. */
function makeSubject(): Promise<DockerSubject> {
  return makeDockerSubject({ host, environment: { DOCKER_HOST: host }, settings: { network_mode: 'host' } })
}

testContract('docker-container on Podman', {
  skip: needs('podman').skip,
  makeSubject,
  timeoutMs: 60_000,
  concurrency: 2,
})

suite('ends of runs on Podman', { ...needs('podman'), concurrency: 2 }, () => {
  test('a container that somebody removed is gone, within 15 s, and no code is made up', options, async () => {
    await using subject = await makeSubject()
    const handle = await subject.infrastructure.submit(await subject.spec('echo here; sleep 60'), unstopped)
    const lines: string[] = []
    const waiting = subject.infrastructure.wait(handle, batch => void lines.push(...batch), unstopped)
    await until(() => lines.length > 0)
    const [found] = await subject.engine.list([`io.rigel.agent=${subject.agentPrefix}`], true, unstopped)
    const id = found?.Id ?? ''
    await subject.engine.kill(id, unstopped)
    await subject.engine.remove(id, unstopped).catch(() => subject.engine.remove(id, unstopped))
    const began = performance.now()
    const exit = await waiting
    assert.ok(performance.now() - began < soonMs)
    // Whoever looks between the kill and the removal still sees how it ended.
    assert.ok(exit.kind === 'vanished' || exit.signal === 'SIGKILL', JSON.stringify(exit))
    assert.deepEqual(exit.outputTail, ['here'])
  })

  test('an event tells of an end at once, long before the list that is read every few seconds', options, async () => {
    await using subject = await makeSubject()
    const tookMs: number[] = []
    for (let round = 0; round < 3; round++) {
      const handle = await subject.infrastructure.submit(await subject.spec('echo here; sleep 60'), unstopped)
      const lines: string[] = []
      const waiting = subject.infrastructure.wait(handle, batch => void lines.push(...batch), unstopped)
      await until(() => lines.length > 0)
      const began = performance.now()
      await subject.infrastructure.kill(handle, 0, unstopped)
      await waiting
      tookMs.push(performance.now() - began)
    }
    assert.ok(Math.min(...tookMs) < 2_000, `took ${tookMs.join(', ')} ms`)
  })

  test('a command that the image lacks is said to be missing', options, async () => {
    await using subject = await makeSubject()
    const spec = await subject.spec('', { command: ['python', '-m', 'prefect.engine'] })
    await assert.rejects(subject.infrastructure.submit(spec, unstopped), error => {
      assert.ok(error instanceof InfrastructureError)
      assert.match(error.message, /lacks Python/)
      assert.equal(error.blame, 'run')
      return true
    })
    const left = await subject.engine.list([`io.rigel.agent=${subject.agentPrefix}`], true, unstopped)
    assert.deepEqual(left, [])
  })

  test('an image that is nowhere, and may not be pulled, is told', options, async () => {
    await using subject = await makeSubject()
    const settings = { image: 'localhost/rigel.test/none:1', image_pull_policy: 'NEVER' }
    const spec = await subject.spec('true', { settings })
    await assert.rejects(subject.infrastructure.submit(spec, unstopped), /does not have image.*NEVER forbids/)
  })

  test('a line that is written in pieces arrives as one, over a restart of the agent too', options, async () => {
    await using subject = await makeSubject()
    // Told to go on: by a time, the last line could come together with the others.
    const { folder, settings } = subject.shared
    const script = `printf a; sleep 0.3; echo b; for i in 1 2 3; do echo $i; done; while [ ! -e ${folder}/go ]; do sleep 0.1; done; echo end`
    const spec = await subject.spec(script, { settings })
    const handle = await subject.infrastructure.submit(spec, unstopped)
    const lines: string[] = []
    const stop = new AbortController()
    const first = subject.infrastructure.wait(handle, batch => void lines.push(...batch), stop.signal)
    first.catch(() => {})
    await until(() => lines.length >= 4)
    stop.abort(new Error('enough'))
    await assert.rejects(first)
    const next = subject.startAnew()
    const ended = next.wait(handle, batch => void lines.push(...batch), unstopped)
    await writeFile(join(folder, 'go'), '')
    await ended
    assert.deepEqual(lines, ['ab', '1', '2', '3', 'end'])
  })
})
