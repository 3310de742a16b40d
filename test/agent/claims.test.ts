// Whose is it? What one agent has left, a record or a proposal that comes late, meets what another has done with the run since.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { followUpId, newTransitionId, readIdentity } from '../../src/agent/identity.ts'
import { type Ending, newRecord } from '../../src/agent/record.ts'
import type { ProposedState } from '../../src/prefect/states.ts'
import { buildPending, buildRunning, buildScheduled, buildState } from '../../src/prefect/states.ts'
import type { FlowRun } from '../../src/prefect/types.ts'
import { startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { never, openStage, type Stage } from './stage.ts'

for (const version of ['prefect2', 'prefect3'] as const) {
  test(`what others run is left alone, what is ours is brought to an end, on ${version}`, needs(version), async () => {
    await using server = await startPrefectServer(version)
    await using stage = await openStage(server.apiUrl)
    const play = new Play(stage)
    const theirs = [
      await play.cancelledOverOurLostClaim(),
      await play.runningOverOurFailedLaunch(),
      await play.runningUnderOurLateRunning(),
    ]
    const ours = [await play.cancelledBeforeItsFormerStateCame(), await play.cancelledAndForgotten()]
    const before = await Promise.all(theirs.map(id => stage.readRun(id)))

    await using agent = stage.startAgent({ name: play.name })
    for (const id of ours) {
      const run = await stage.waitFor(id, ['CANCELLED'])
      assert.match(run.state?.message ?? '', /cancelled before it was started/, agent.output)
    }
    await until(() => readdirSync(join(stage.stateDirectory, 'runs')).length === 0, { what: 'the journal to be empty' })
    for (const run of before) {
      const now = await stage.readRun(run.id)
      assert.deepEqual([now.state_name, now.state?.id], [run.state_name, run.state?.id], agent.output)
    }
  })
}

/** Brings runs into the states that they are met in. Each act gives the run's id. */
class Play {
  readonly name = 'first'
  readonly #stage: Stage

  constructor(stage: Stage) {
    this.#stage = stage
    mkdirSync(stage.stateDirectory)
  }

  async cancelledOverOurLostClaim(): Promise<string> {
    const run = await this.#create()
    // Killed just before the claim went out.
    this.#leave(run, this.#claimId())
    await this.#isRunByAnother(run)
    return this.#say(run, buildState('CANCELLING'))
  }

  async runningOverOurFailedLaunch(): Promise<string> {
    const run = await this.#create()
    const claim = this.#claimId()
    await this.#say(run, buildPending({ transitionId: claim }))
    this.#leave(run, claim, { kind: 'not-launched', message: 'The flow run could not be started: Command not found' })
    await this.#say(run, buildScheduled({ scheduledTime: new Date().toISOString() }))
    return this.#isRunByAnother(run)
  }

  /** We have given it back; our RUNNING, sent before that, is carried out when another agent runs it. */
  async runningUnderOurLateRunning(): Promise<string> {
    const run = await this.#create()
    const claim = this.#claimId()
    const scheduledTime = new Date().toISOString()
    await this.#say(run, buildPending({ transitionId: claim }))
    await this.#say(run, buildScheduled({ scheduledTime, transitionId: followUpId(claim, 'report') }))
    await this.#isRunByAnother(run)
    return this.#say(run, buildRunning({ transitionId: followUpId(claim, 'running') }))
  }

  async cancelledBeforeItsFormerStateCame(): Promise<string> {
    const run = await this.#create()
    const claim = this.#claimId()
    await this.#say(run, buildPending({ transitionId: claim }))
    this.#leave(run, claim, { kind: 'restore' })
    return this.#say(run, buildState('CANCELLING'))
  }

  async cancelledAndForgotten(): Promise<string> {
    const run = await this.#create()
    await this.#say(run, buildPending({ transitionId: this.#claimId() }))
    return this.#say(run, buildState('CANCELLING'))
  }

  async #create(): Promise<FlowRun> {
    const run = await this.#stage.run(await this.#stage.deployCommand({ script: 'true' }))
    return this.#stage.readRun(run.id)
  }

  #claimId(): string {
    return newTransitionId(readIdentity(this.#stage.stateDirectory, this.name))
  }

  /** Writes the record that an earlier life has left. */
  #leave(run: FlowRun, transitionId: string, ending?: Ending): void {
    const folder = join(this.#stage.stateDirectory, 'runs', run.id)
    mkdirSync(folder, { recursive: true })
    const record = { ...newRecord(run, transitionId), ...(ending ? { step: 'ended', ending } : {}) }
    writeFileSync(join(folder, 'record.json'), `${JSON.stringify(record)}\n`)
  }

  async #isRunByAnother(run: FlowRun): Promise<string> {
    await this.#say(run, buildPending({ transitionId: randomUUID() }))
    await this.#say(run, buildRunning({ transitionId: randomUUID() }))
    await this.#stage.client.updateFlowRun(run.id, { infrastructure_pid: 'elsewhere:4711' }, never)
    return run.id
  }

  async #say({ id }: FlowRun, state: ProposedState): Promise<string> {
    const { status, details } = await this.#stage.client.setFlowRunState(id, state, {}, never)
    assert.equal(status, 'ACCEPT', `${state.type}: ${details?.reason}`)
    return id
  }
}
