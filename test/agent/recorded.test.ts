// A release takes over the runs of the one before. The folders of runs below recorded/ were left behind by agents of that
// release, killed at the step that each is named after; here they are laid into a state folder as if that had just happened.
//
// Recorded again for each release that raises a version: record, supervisor's files and labels each carry one.

import assert from 'node:assert/strict'
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { followUpId } from '../../src/agent/identity.ts'
import { buildPending, buildRunning } from '../../src/prefect/states.ts'
import type { FlowRun } from '../../src/prefect/types.ts'
import { type PrefectServer, startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { never, openStage, type Stage } from './stage.ts'

const over = ['COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED'] as const
const recordings = fileURLToPath(new URL('./recorded/0.1.0/', import.meta.url))
/** The name of the agent that was recorded: claims are known by it. */
const name = 'recorder'

const cases = [
  { step: 'claiming', server: 'SCHEDULED', ends: 'COMPLETED', starts: 1 },
  { step: 'claimed', server: 'PENDING', ends: 'COMPLETED', starts: 1 },
  { step: 'submitting', server: 'RUNNING', ends: 'COMPLETED', starts: 1 },
  { step: 'running', server: 'RUNNING', ends: 'COMPLETED', starts: 0 },
  // The machine was started anew before the command had ended.
  { step: 'running', server: 'RUNNING', ends: 'CRASHED', starts: 0, hasNoExit: true },
  { step: 'ended', server: 'RUNNING', ends: 'COMPLETED', starts: 0 },
] as const

describe('a journal that release 0.1.0 has left', needs('prefect2'), () => {
  let server: PrefectServer
  before(async () => {
    server = await startPrefectServer('prefect2')
  })
  after(() => server[Symbol.asyncDispose]())

  for (const given of cases) {
    const what = 'hasNoExit' in given ? `${given.step}, without an exit code` : given.step
    test(`${what}: the run ends ${given.ends}, started ${given.starts} times more`, async () => {
      await using stage = await openStage(server.apiUrl)
      const run = await stage.run(await stage.deployCommand({ script: 'true' }))
      const { transitionId } = layRecording(stage, run, given)
      if (given.server !== 'SCHEDULED')
        await stage.client.setFlowRunState(run.id, buildPending({ transitionId }), {}, never)
      if (given.server === 'RUNNING')
        await stage.client.setFlowRunState(
          run.id,
          buildRunning({ transitionId: followUpId(transitionId, 'running') }),
          {},
          never,
        )
      await using agent = stage.startAgent({ name })
      const done = await stage.waitFor(run.id, over)
      assert.equal(done.state_type, given.ends, `${done.state?.message}\n${agent.output}`)
      assert.equal(stage.starts(run.id), given.starts, agent.output)
    })
  }
})

interface Recorded {
  readonly flowRunId: string
  readonly transitionId: string
  readonly polled: { readonly stateId: string }
}

/** Puts the recorded folder into the journal under another run's id, and gives what its record says of the claim. */
function layRecording(stage: Stage, run: FlowRun, given: (typeof cases)[number]): Recorded {
  const from = join(recordings, given.step)
  const to = join(stage.stateDirectory, 'runs', run.id)
  mkdirSync(to, { recursive: true })
  cpSync(from, to, { recursive: true })
  const file = join(to, 'record.json')
  const recorded: Recorded = JSON.parse(readFileSync(file, 'utf8'))
  const text = readFileSync(file, 'utf8')
    .replaceAll(recorded.flowRunId, run.id)
    .replaceAll(recorded.polled.stateId, run.state?.id ?? '')
  writeFileSync(file, text)
  if ('hasNoExit' in given) {
    const [folder = ''] = readdirSync(join(to, 'process'))
    const exit = join(to, 'process', folder, 'exit')
    writeFileSync(exit, ' '.repeat(readFileSync(exit).length))
  }
  return recorded
}
