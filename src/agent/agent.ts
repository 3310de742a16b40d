// One life of the agent: takes the state folder, resumes what the journal holds, polls and watches until it is told to
// stop, drains, and lets go of or ends what is left.

import { accessSync, constants, mkdirSync } from 'node:fs'
import { hostname } from 'node:os'
import { Scope } from '../async/scope.ts'
import { jitter } from '../async/sleep.ts'
import { Wake } from '../async/wake.ts'
import { describeError, UserError } from '../errors.ts'
import type { Infrastructure } from '../infrastructure/infrastructure.ts'
import type { Logger } from '../logger.ts'
import type { PrefectClient } from '../prefect/client.ts'
import type { StorageContext } from '../storage/context.ts'
import type { AgentContext, AgentSettings } from './agent-context.ts'
import { SharedReads } from './assignment.ts'
import { Watch } from './cancellation.ts'
import { Complaints } from './complaints.ts'
import { type Identity, newTransitionId, readIdentity } from './identity.ts'
import { Journal } from './journal.ts'
import { Lifecycle } from './lifecycle.ts'
import { readHolder, StateLock } from './lock.ts'
import { type OutputOptions, OutputRelay } from './output.ts'
import { type DueRun, Poll, type PollOptions } from './poll.ts'
import { RunReader } from './reader.ts'
import { newRecord, type RunRecord } from './record.ts'
import { findOrphans, recoverRecord } from './recover.ts'
import { Slots } from './slots.ts'
import { HostTrouble } from './trouble.ts'
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
  readonly loadInfrastructure: (type: string, runsDirectory: string) => Promise<Infrastructure>
  /** Poll once, then drain and return. */
  readonly runOnce: boolean
  /** False: refuse to start while another agent holds the state folder. */
  readonly waitForLock: boolean
  readonly drainSeconds: number
  /** What becomes of runs that are left after the drain. */
  readonly onStop: 'detach' | 'kill'
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
/** Reports that are left when the agent ends what runs: this long, then the next start delivers them. */
const lastReportsMs = 10_000

/** Runs the agent until it is told to stop; returns how many runs were let go or are not reported yet. */
export async function runAgent(options: AgentOptions, signals: AgentSignals): Promise<{ left: number }> {
  makeStateDirectory(options.stateDirectory)
  const lock = await takeLock(options, signals.stopping)
  if (!lock) return { left: 0 }
  using _lock = lock
  const journal = new Journal(options.stateDirectory)
  await journal.open()
  const agent = new Agent(options, journal, lock, readIdentity(options.stateDirectory, options.name))
  return await agent.run(signals) // awaited here, or the lock would be given back at once
}

function makeStateDirectory(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    accessSync(path, constants.W_OK)
  } catch (error) {
    throw new UserError(`The state folder ${path} cannot be used: ${describeError(error)}.`, {
      hint: 'Name another one with RIGEL_STATE_DIR, or make this one writable for the user that the agent runs as.',
      exitCode: 2,
      cause: error,
    })
  }
}

async function takeLock(options: AgentOptions, stopping: AbortSignal): Promise<StateLock | undefined> {
  if (options.waitForLock) return StateLock.wait(options.stateDirectory, options.logger, stopping)
  const lock = StateLock.take(options.stateDirectory)
  if (lock) return lock
  const holder = readHolder(options.stateDirectory)
  throw new UserError(
    `Another agent${holder ? ` (process ${holder.pid} on ${holder.host})` : ''} uses the state folder ${options.stateDirectory}.`,
    {
      hint: 'Stop it first, leave out --no-wait to take over from it, or give this agent a folder of its own (RIGEL_STATE_DIR).',
    },
  )
}

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
  readonly #watch: Watch
  readonly #context: AgentContext
  readonly #resumed = new Set<string>()
  /** Records of a later release: theirs alone. */
  readonly #untouchable = new Set<string>()
  #backlog: DueRun[] = []
  #mayHaveMore = false
  #lastPollAt: number | undefined

  constructor(options: AgentOptions, journal: Journal, lock: StateLock, identity: Identity) {
    const { client, logger, settings } = options
    const signal = this.#detach.signal
    const turns = new Turns()
    const complaints = new Complaints(logger)
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
      reader: new RunReader(client, turns, signal),
      journal,
      trouble: new HostTrouble(journal, logger),
      output: new OutputRelay(client, turns, options.output, logger, signal),
      complaints,
      storage: options.storage,
      settings,
      logger,
      infrastructure: type => options.loadInfrastructure(type, journal.runsDirectory),
      isResumed: flowRunId => this.#resumed.has(flowRunId),
      avoid: flowRunId => this.#poll.avoid(flowRunId),
      changed: () => this.#wake.ring(),
      background: work => this.#scope.spawn(work),
      checkpoint: options.checkpoint ?? (() => undefined),
    }
    this.#watch = new Watch(this.#context)
  }

  /** What is well and what is not, part by part, for `/ready`; undefined means well. */
  get ailments(): Readonly<Record<'api' | 'host' | 'poll', string | undefined>> {
    const { health } = this.#options.client
    const silentMs = this.#lastPollAt === undefined ? 0 : performance.now() - this.#lastPollAt
    const isLate = silentMs > this.#options.settings.queryIntervalSeconds * 1000 * 4 + 60_000
    return {
      api: health.consecutiveFailures > 0 ? `the last ${health.consecutiveFailures} requests failed` : undefined,
      host: this.#context.trouble.reason,
      poll: isLate ? `no poll was begun for ${Math.round(silentMs / 1000)} s` : undefined,
    }
  }

  /** The loops turn: for a watchdog, which is not to end an agent only because the API or the host is sick. */
  get isAlive(): boolean {
    return this.ailments.poll === undefined
  }

  get counts(): { readonly held: number; readonly unreported: number; readonly limit: number } {
    return { held: this.#slots.held, unreported: this.#slots.unreported, limit: this.#options.settings.limit }
  }

  async run({ stopping, kill }: AgentSignals): Promise<{ left: number }> {
    this.#lock.describe({ pid: process.pid, host: hostname(), runs: 0, draining: false })
    this.#resume()
    this.#options.onReady?.(this)
    const stopped = AbortSignal.any([stopping, kill])
    const loops = new Scope(stopped)
    loops.spawn(signal => this.#pollLoop(signal))
    // The watch goes on while draining: a run can be cancelled at any time.
    this.#scope.spawn(() => this.#watchLoop(this.#detach.signal))
    await loops.join()
    await this.#drain(kill)
    const left = this.#slots.lives.length
    this.#detach.abort(new Error('the agent lets go'))
    await this.#scope.join()
    return { left }
  }

  // ---- resume ------------------------------------------------------------------------------------------------------

  #resume(): void {
    for (const { flowRunId, found } of this.#journal.found()) {
      this.#resumed.add(flowRunId)
      switch (found.kind) {
        case 'readable':
          this.#follow(found.record, new SharedReads())
          break
        case 'newer':
          this.#untouchable.add(flowRunId)
          this.#logger.error(
            { flow_run_id: flowRunId, record_version: found.version },
            'this run was taken over by a later release of Rigel; leaving it alone until that release is started again',
          )
          break
        case 'unreadable':
          this.#logger.error(
            { flow_run_id: flowRunId, reason: found.reason },
            'unreadable record set aside; asking server and infrastructure',
          )
          this.#scope.spawn(() => this.#recover(flowRunId))
      }
    }
    if (this.#slots.lives.length > 0)
      this.#logger.info({ runs: this.#slots.lives.length }, 'resuming runs of an earlier life')
  }

  async #recover(flowRunId: string): Promise<void> {
    this.#untouchable.add(flowRunId) // by the poll, until it is known what it is
    try {
      this.#journal.setAside(flowRunId)
      const record = await recoverRecord(this.#context, this.#identity, flowRunId, this.#detach.signal)
      if (record) this.#follow(record, new SharedReads())
      else this.#journal.keepAside(flowRunId)
    } catch (error) {
      // The folder stays as it is, and the next start tries again.
      if (!this.#detach.signal.aborted)
        this.#logger.error({ flow_run_id: flowRunId, err: error }, 'could not recover the run')
      return
    }
    this.#untouchable.delete(flowRunId)
  }

  // ---- poll --------------------------------------------------------------------------------------------------------

  async #pollLoop(signal: AbortSignal): Promise<void> {
    const intervalMs = this.#options.settings.queryIntervalSeconds * 1000
    let nextPollAt = 0
    while (!signal.aborted) {
      this.#startBacklog()
      const isDue = performance.now() >= nextPollAt
      if (isDue || (this.#mayHaveMore && this.#backlog.length === 0 && this.#slots.free > 0)) {
        nextPollAt = performance.now() + jitter(intervalMs, 0.2)
        await this.#pollOnce(signal)
        this.#startBacklog()
        if (this.#options.runOnce && !this.#mayHaveMore) return
        continue
      }
      await this.#wake.wait(nextPollAt - performance.now(), signal)
    }
  }

  /** Asks for somewhat more than can be started now, so that a burst costs few polls; what waits here grows old and is asked anew. */
  async #pollOnce(signal: AbortSignal): Promise<void> {
    const wanted = this.#slots.free + Math.min(this.#options.settings.limit, 50)
    this.#lastPollAt = performance.now()
    const isKnown = (flowRunId: string) => this.#slots.has(flowRunId) || this.#untouchable.has(flowRunId)
    this.#backlog = await this.#poll.due(wanted, isKnown, signal)
    this.#mayHaveMore = this.#backlog.length >= wanted
  }

  /** Claims as many as there are free slots, earliest first. */
  #startBacklog(): void {
    const freshMs = this.#options.settings.queryIntervalSeconds * 1000
    if (this.#lastPollAt !== undefined && performance.now() - this.#lastPollAt > freshMs) this.#backlog = []
    let allowance = this.#context.trouble.allowance(this.#slots.free)
    while (allowance > 0) {
      const due = this.#backlog.shift()
      if (!due) return
      if (this.#slots.has(due.run.id)) continue
      this.#follow(newRecord(due.run, newTransitionId(this.#identity)), due.shared)
      allowance--
    }
  }

  #follow(record: RunRecord, shared: SharedReads): void {
    const life = new Lifecycle(this.#context, record, shared, this.#detach.signal)
    this.#slots.add(life)
    this.#scope.spawn(async () => {
      try {
        await life.follow()
      } catch (error) {
        // A bug, met by one run, must not end the others: its record stays, and the next start takes it up again.
        this.#logger.error(
          { flow_run_id: record.flowRunId, err: error },
          'internal error; this run is left until the next start',
        )
        this.#untouchable.add(record.flowRunId)
      } finally {
        this.#resumed.delete(record.flowRunId)
        this.#slots.remove(life)
        this.#wake.ring()
      }
    })
  }

  // ---- watch -------------------------------------------------------------------------------------------------------

  async #watchLoop(signal: AbortSignal): Promise<void> {
    const intervalMs = this.#options.settings.queryIntervalSeconds * 1000
    const pause = new Wake()
    for (let look = 0; !signal.aborted; look++) {
      try {
        await this.#watch.look(this.#slots.lives, this.#poll.queues.length > 0, signal)
        if (look % orphanLookEvery === 1) await this.#adoptOrphans(signal)
        this.#context.complaints.settle('watch', 'the server shows our runs again')
      } catch (error) {
        if (signal.aborted) return
        this.#context.complaints.say('watch', 'could not look at our runs on the server', { err: error })
      }
      await pause.wait(jitter(intervalMs, 0.2), signal)
    }
  }

  async #adoptOrphans(signal: AbortSignal): Promise<void> {
    const queues = this.#poll.queues.map(queue => queue.id)
    const isKnown = (flowRunId: string) => this.#slots.has(flowRunId) || this.#untouchable.has(flowRunId)
    for (const record of await findOrphans(this.#context, this.#identity, queues, isKnown, this.#logger, signal)) {
      await this.#journal.begin(record)
      this.#follow(record, new SharedReads())
    }
  }

  // ---- drain -------------------------------------------------------------------------------------------------------

  async #drain(kill: AbortSignal): Promise<void> {
    const { drainSeconds, onStop, runOnce } = this.#options
    const deadline = runOnce ? Number.POSITIVE_INFINITY : performance.now() + drainSeconds * 1000
    let said = -1
    while (this.#slots.lives.length > 0 && performance.now() < deadline && !kill.aborted) {
      const runs = this.#slots.held
      if (runs !== said) {
        this.#lock.describe({ pid: process.pid, host: hostname(), runs, draining: true })
        this.#logger.info({ runs, unreported: this.#slots.unreported }, drainPhrase(onStop))
        said = runs
      }
      if (onStop === 'detach' && this.#lock.hasSuccessor()) {
        this.#logger.info({ runs }, 'another agent waits for this state folder; letting go of the runs')
        return
      }
      if (runs === 0 && (await this.#reportsGoNowhere())) break
      await this.#wake.wait(500, kill)
    }
    if (this.#slots.held === 0) return
    if (onStop === 'detach' && !kill.aborted) {
      this.#logger.info({ runs: this.#slots.held }, 'letting go of the runs; the next agent takes them over')
      return
    }
    await this.#endAll()
  }

  /** Waiting for reports makes sense only while the API answers; else the next start delivers them. */
  async #reportsGoNowhere(): Promise<boolean> {
    return this.#options.client.health.consecutiveFailures > 2
  }

  async #endAll(): Promise<void> {
    this.#logger.warn(
      { runs: this.#slots.held },
      'ending the runs that are left; the next signal ends this process at once',
    )
    for (const life of this.#slots.lives) life.requestStop('agent-stopped')
    const grace = this.#options.settings.cancelGraceSeconds * 1000
    const deadline = performance.now() + grace + lastReportsMs
    const never = new AbortController().signal
    while (this.#slots.lives.length > 0 && performance.now() < deadline) await this.#wake.wait(200, never)
    await this.#context.output.flush()
  }
}

function drainPhrase(onStop: 'detach' | 'kill'): string {
  return onStop === 'detach'
    ? 'stopping: waiting for runs to end, then letting go of them; the next signal ends them'
    : 'stopping: waiting for runs to end; the next signal ends them'
}
