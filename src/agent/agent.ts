// One life of the agent: resumes what the journal holds, polls and watches until it is told to
// stop, drains, and lets go of or ends what is left.

import { hostname } from 'node:os'
import { Scope } from '../async/scope.ts'
import { atMost, jitter, sleep } from '../async/sleep.ts'
import { Wake } from '../async/wake.ts'
import { readBootId } from '../infrastructure/boot.ts'
import type { Infrastructure } from '../infrastructure/infrastructure.ts'
import type { Logger } from '../logger.ts'
import type { PrefectClient } from '../prefect/client.ts'
import type { StorageContext } from '../storage/context.ts'
import type { AgentContext, AgentSettings } from './agent-context.ts'
import { Watch } from './cancellation.ts'
import { Complaints } from './complaints.ts'
import { drain, type OnStop } from './drain.ts'
import { type Identity, newTransitionId } from './identity.ts'
import { Intake } from './intake.ts'
import type { Journal } from './journal.ts'
import type { StateLock } from './lock.ts'
import { type OutputOptions, OutputRelay } from './output.ts'
import { type DueRun, Poll, type PollOptions } from './poll.ts'
import { RunReader } from './reader.ts'
import { newRecord, type RunRecord } from './record.ts'
import { findOrphans, recoverRecord } from './recover.ts'
import { createReadSettings, type ReadSettings } from './run-settings.ts'
import { Slots } from './slots.ts'
import { ClaimRefusals, HostTrouble } from './trouble.ts'
import { Turns } from './turns.ts'

export interface AgentOptions {
  readonly client: PrefectClient
  readonly logger: Logger
  readonly stateDirectory: string
  /** Undefined: one is made and kept in the state folder. */
  readonly name: string | undefined
  readonly poll: PollOptions
  readonly settings: AgentSettings
  readonly storage: StorageContext
  readonly output: OutputOptions
  /** Loads the driver for a block type; `runsDirectory` is where each run has its folder. */
  readonly loadInfrastructure: (
    type: string,
    runsDirectory: string,
    readSettings: ReadSettings,
  ) => Promise<Infrastructure>
  /** Poll once, then drain and return. */
  readonly runOnce: boolean
  /** False: refuse to start while another agent holds the state folder. */
  readonly waitForLock: boolean
  readonly drainSeconds: number
  /** What becomes of runs that are left after the drain; see `DrainOptions`. */
  readonly onStop: OnStop
  /** Called when the agent has the state folder and has begun to poll. */
  readonly onReady?: (agent: Agent) => void
  /** Called before and after each step of a run. */
  readonly checkpoint?: (point: string, flowRunId: string) => void
}

/** From outside. `stopping`: take nothing new, drain. `kill`: end now what still runs. */
export interface AgentSignals {
  readonly stopping: AbortSignal
  readonly kill: AbortSignal
}

/** The look for claims without a record, every so many looks at the runs in hand. */
const orphanLookEvery = 20
/** Output that still waits for the API when the agent goes: this long, in milliseconds. */
const lastOutputMs = 3_000
/** An engine or cluster that does not answer must not keep an agent that is told to go: this long, in milliseconds. */
const closingMs = 5_000

export class Agent {
  readonly #options: AgentOptions
  readonly #journal: Journal
  readonly #lock: StateLock
  readonly #identity: Identity
  readonly #logger: Logger
  /** Aborted to let go of everything that waits; records stay as they are. */
  readonly #detach = new AbortController()
  readonly #scope = new Scope()
  readonly #wake = new Wake()
  readonly #slots: Slots
  readonly #poll: Poll
  readonly #intake: Intake
  readonly #watch: Watch
  readonly #context: AgentContext
  /** Those that were needed so far. */
  readonly #drivers = new Set<Infrastructure>()

  constructor(options: AgentOptions, journal: Journal, lock: StateLock, identity: Identity) {
    const { client, logger, settings } = options
    const signal = this.#detach.signal
    const turns = new Turns()
    const complaints = new Complaints(logger)
    const reader = new RunReader(client, turns, signal)
    const readSettings = createReadSettings(client, reader)
    this.#options = options
    this.#journal = journal
    this.#lock = lock
    this.#identity = identity
    this.#logger = logger
    this.#slots = new Slots(settings.limit)
    this.#poll = new Poll(client, options.poll, complaints, logger)
    this.#context = {
      client,
      turns,
      reader,
      journal,
      trouble: new HostTrouble(journal, logger),
      refusals: new ClaimRefusals(complaints),
      output: new OutputRelay(client, turns, options.output, logger, signal),
      complaints,
      storage: options.storage,
      settings,
      bootId: readBootId(),
      logger,
      infrastructure: async type => {
        const driver = await options.loadInfrastructure(type, journal.runsDirectory, readSettings)
        this.#drivers.add(driver)
        return driver
      },
      avoid: flowRunId => this.#poll.avoid(flowRunId),
      changed: () => this.#wake.ring(),
      background: work => this.#scope.spawn(work),
      checkpoint: options.checkpoint ?? (() => undefined),
    }
    this.#watch = new Watch(this.#context)
    this.#intake = new Intake({
      poll: this.#poll,
      slots: this.#slots,
      trouble: this.#context.trouble,
      refusals: this.#context.refusals,
      wake: this.#wake,
      intervalMs: settings.queryIntervalSeconds * 1000,
      runOnce: options.runOnce,
      begin: due => {
        const { bootId } = this.#context
        this.#follow({ ...newRecord(due.run, newTransitionId(identity)), bootId }, due)
      },
    })
  }

  /** What is well and what is not, part by part, for `/ready`; undefined means well. */
  get ailments(): Readonly<Record<'api' | 'host' | 'poll', string | undefined>> {
    const { health } = this.#options.client
    const silentMs = this.#intake.silentMs
    const isLate = silentMs > this.#options.settings.queryIntervalSeconds * 1000 * 4 + 60_000
    return {
      api: health.consecutiveFailures > 0 ? `the last ${health.consecutiveFailures} requests failed` : undefined,
      host: this.#context.trouble.reason,
      poll: isLate ? `no poll was begun for ${Math.round(silentMs / 1000)} s` : undefined,
    }
  }

  async run({ stopping, kill }: AgentSignals): Promise<{ left: number }> {
    const { client, drainSeconds, onReady, onStop, runOnce, settings } = this.#options
    this.#lock.describe({ pid: process.pid, host: hostname(), runs: 0, draining: false })
    this.#resume()
    onReady?.(this)
    // The watch goes on while draining: a run can be cancelled at any time.
    this.#scope.spawn(() => this.#watchLoop(this.#detach.signal))
    await this.#intake.run(AbortSignal.any([stopping, kill]))
    await drain(
      {
        slots: this.#slots,
        lock: this.#lock,
        logger: this.#logger,
        drainSeconds: runOnce && !stopping.aborted ? Number.POSITIVE_INFINITY : drainSeconds,
        onStop,
        cancelGraceSeconds: settings.cancelGraceSeconds,
        canReport: () => client.health.consecutiveFailures < 3,
      },
      kill,
    )
    await atMost(lastOutputMs, this.#context.output.flush(), kill)
    const { left } = this.#slots
    this.#detach.abort(new Error('the agent lets go'))
    await this.#scope.join()
    await atMost(closingMs, this.#closeDrivers(), kill)
    return { left }
  }

  /** Watches and streams that stay open would keep the process, and a service manager waiting for it. */
  async #closeDrivers(): Promise<void> {
    const close = async (driver: Infrastructure): Promise<void> => {
      try {
        await driver[Symbol.asyncDispose]?.()
      } catch (error) {
        this.#logger.debug({ err: error }, 'could not close an infrastructure driver')
      }
    }
    await Promise.all([...this.#drivers].map(close))
  }

  #follow(record: RunRecord, due?: DueRun): void {
    this.#slots.follow(record, due, this.#context, this.#scope, this.#detach.signal)
  }

  #resume(): void {
    for (const { flowRunId, found } of this.#journal.found()) {
      if (found.kind === 'readable') this.#follow(found.record)
      else {
        this.#slots.bar(flowRunId)
        if (found.kind === 'newer') this.#sayNewer(flowRunId, found.version)
        else this.#scope.spawn(() => this.#recover(flowRunId, found.reason))
      }
    }
    const runs = this.#slots.lives.length
    if (runs > 0) this.#logger.info({ runs }, 'resuming runs of an earlier life')
  }

  #sayNewer(flowRunId: string, version: number): void {
    this.#logger.error(
      { flow_run_id: flowRunId, record_version: version },
      'this run was taken over by a later release of Rigel; leaving it alone until that release is started again',
    )
  }

  async #recover(flowRunId: string, reason: string): Promise<void> {
    const fields = { flow_run_id: flowRunId, reason }
    this.#logger.error(fields, 'unreadable record set aside; asking server and infrastructure')
    try {
      this.#journal.setAside(flowRunId)
      const record = await recoverRecord(this.#context, this.#identity, flowRunId, this.#detach.signal)
      if (record) this.#follow(record)
      else this.#journal.keepAside(flowRunId)
      this.#slots.unbar(flowRunId)
    } catch (error) {
      // The folder stays as it is, and the next start tries again.
      if (!this.#detach.signal.aborted) this.#logger.error({ ...fields, err: error }, 'could not recover the run')
    }
  }

  async #watchLoop(signal: AbortSignal): Promise<void> {
    const intervalMs = this.#options.settings.queryIntervalSeconds * 1000
    for (let look = 0; !signal.aborted; look++) {
      try {
        await this.#watch.look(this.#slots.lives, signal)
        if (look % orphanLookEvery === 1) await this.#adoptOrphans(signal)
        this.#context.complaints.settle('watch', 'the server shows our runs again')
      } catch (error) {
        if (signal.aborted) return
        this.#context.complaints.say('watch', 'could not look at our runs on the server', { err: error })
      }
      await sleep(jitter(intervalMs, 0.2), signal)
    }
  }

  async #adoptOrphans(signal: AbortSignal): Promise<void> {
    const queues = this.#poll.queues.map(queue => queue.id)
    const isKnown = (flowRunId: string) => this.#slots.knows(flowRunId)
    for (const record of await findOrphans(this.#context, this.#identity, queues, isKnown, signal)) {
      const { flowRunId } = record
      // It may have been claimed while the others were looked at; its record must not be written over, now or meanwhile.
      if (isKnown(flowRunId)) continue
      this.#slots.bar(flowRunId)
      try {
        await this.#journal.begin(record)
        this.#follow(record)
      } finally {
        this.#slots.unbar(flowRunId)
      }
    }
  }
}
