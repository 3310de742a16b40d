// `rigel gc` knows Jobs: finished ones of this agent beyond what is kept, and nothing else.

import assert from 'node:assert/strict'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import type { CollectRequest, Handle } from '../../src/infrastructure/infrastructure.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { makeKubernetesSubject, unstopped } from './kubernetes-subject.ts'

const jobOf = ({ identifier }: Handle) => identifier.split(':')[2] ?? ''

test('finished Jobs beyond what is kept go; running ones, held ones and strangers stay', {
  ...needs('kubernetes'),
  timeout: 240_000,
}, async () => {
  await using subject = await makeKubernetesSubject()
  const { infrastructure } = subject
  const submit = async (script: string) => await infrastructure.submit(await subject.spec(script), unstopped)
  const finish = async (script: string) => {
    const handle = await submit(script)
    await infrastructure.wait(handle, () => {}, AbortSignal.timeout(90_000))
    await infrastructure.release(handle, unstopped)
    return handle
  }
  const running = await submit('sleep 600')
  const first = await finish('exit 0')
  const second = await finish('exit 3')
  const held = await finish('exit 0')
  await until(
    async () =>
      (await subject.jobs()).filter(({ status }) =>
        status?.conditions?.some(({ type }) => type === 'Complete' || type === 'Failed'),
      ).length === 3,
    {
      timeoutMs: 60_000,
    },
  )
  const request: CollectRequest = {
    finished: { keep: 0, maxAgeSeconds: 0 },
    images: undefined,
    agentPrefix: subject.agentPrefix,
    isHeld: flowRunId => flowRunId === held.flowRunId,
    dryRun: true,
  }
  // As a later life of the agent, or `rigel gc` beside it: from the state folder alone.
  const next = subject.startAnew()
  const told = await next.collect(request, unstopped)
  assert.deepEqual(
    told.map(({ kind, name, flowRunId }) => [kind, name, flowRunId]),
    [first, second].map(handle => ['job', jobOf(handle), handle.flowRunId]),
  )
  assert.equal((await subject.jobs()).length, 4, 'a dry run removes nothing')
  assert.deepEqual(await next.collect({ ...request, agentPrefix: '00000000', dryRun: false }, unstopped), [])
  assert.equal((await next.collect({ ...request, dryRun: false }, unstopped)).length, 2)
  await until(async () => (await subject.jobs()).length === 2, { timeoutMs: 60_000 })
  const names = (await subject.jobs()).map(({ metadata }) => metadata.name).toSorted()
  assert.deepEqual(names, [jobOf(running), jobOf(held)].toSorted())
  await rm(join(subject.runsDirectory, '..', 'kubernetes-namespaces.json'))
  assert.deepEqual(
    await subject.startAnew().collect(request, unstopped),
    [],
    'an agent that has used no cluster asks none',
  )
})
