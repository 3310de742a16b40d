// Runs flow runs as containers of a Docker engine.
//
// In: RunSpecs of Prefect's `docker-container` block. Out: Handles `<engine's base url>:<container id>` and Exits.
// All that must survive the agent lies in the engine: names and labels say whose a container is, its state whether it ran.
// docs/docker.md tells the whole story.

import { join } from 'node:path'
import { Scope } from '../async/scope.ts'
import type { ContainerInfo } from './docker-answers.ts'
import { collectContainers } from './docker-collect.ts'
import { type Connected, type ConnectionOptions, openConnection } from './docker-connection.ts'
import { buildCreatePlan, type CreatePlan, label } from './docker-create.ts'
import type { DockerEngine } from './docker-engine.ts'
import type { Ended } from './docker-events.ts'
import { readExit } from './docker-exit.ts'
import { forgetGeneration, nextGeneration, readGeneration } from './docker-generation.ts'
import { agentOf, idOf, strange, toHandle } from './docker-handle.ts'
import { killContainer } from './docker-kill.ts'
import { LogShipper, readTail } from './docker-logs.ts'
import { patiently } from './docker-patience.ts'
import { type DockerSettings, readDockerSettings } from './docker-settings.ts'
import { launchContainer } from './docker-submit.ts'
import { Sweep } from './docker-sweep.ts'
import { discardOnce } from './docker-ticket.ts'
import { EngineError } from './docker-transport.ts'
import type {
  Attempt,
  CleanupRules,
  Collectable,
  CollectRequest,
  Exit,
  Handle,
  Infrastructure,
  OutputSink,
  RunSpec,
} from './infrastructure.ts'
import { InfrastructureError } from './infrastructure.ts'
import { forgetPosition } from './log-position.ts'

/**
 * For so long after its start a container is only looked at when an event says so. What ends sooner is looked at once and
 * read once; of what lives longer, the output begins to flow then. In milliseconds.
 */
const momentMs = 500

export interface DockerOptions extends ConnectionOptions {
  /** What is cleared away as runs end; undefined: nothing. */
  readonly cleanup?: CleanupRules | undefined
  /** How often that is looked after while no run ends; default an hour. */
  readonly idleSweepSeconds?: number
  /** For how long after its start a container is looked at for an event only; default 500 ms. */
  readonly momentMs?: number
}

export type DockerInfrastructure = Required<Infrastructure>

export function createDockerInfrastructure(options: DockerOptions): DockerInfrastructure {
  return new DockerDriver(options)
}

class DockerDriver implements DockerInfrastructure {
  readonly #options: DockerOptions
  #connected: Promise<Connected> | undefined
  /** Labels of containers that were waited for, so that `release` need not ask again. */
  readonly #isAutoRemoved = new Map<string, boolean>()
  /** Until when a container that was started in this life is not looked at without an event. */
  readonly #restsUntil = new Map<string, number>()
  readonly #sweep: Sweep | undefined

  constructor(options: DockerOptions) {
    this.#options = options
    const { cleanup: rules, idleSweepSeconds: idleSeconds, runsDirectory, logger } = options
    const collect = (request: CollectRequest, signal: AbortSignal) => this.collect(request, signal)
    this.#sweep = rules && new Sweep({ rules, runsDirectory, collect, logger, idleSeconds })
  }

  async submit(spec: RunSpec, signal: AbortSignal): Promise<Handle> {
    const settings = readDockerSettings(spec.settings)
    const { engine, supply, images } = await this.#connect()
    const plan = await this.#plan(spec, settings, signal)
    const fetchImage = (stop: AbortSignal) => supply.fetch(plan.image, settings, stop)
    await supply.refresh(plan.image, settings, signal)
    const { logger } = this.#options
    const cargo = { workspace: spec.workspace, files: spec.files }
    try {
      const id = await launchContainer({ engine, plan, attempt: spec, cargo, fetchImage, logger }, signal)
      this.#restsUntil.set(id, performance.now() + (this.#options.momentMs ?? momentMs))
      await images.noteUse(plan.image)
      return toHandle(engine, id, spec)
    } catch (error) {
      await nextGeneration(this.#options.runsDirectory, spec)
      throw error
    }
  }

  async wait(handle: Handle, output: OutputSink, signal: AbortSignal): Promise<Exit> {
    const { engine, watch } = await this.#connect()
    const id = idOf(engine, handle)
    if (id === undefined) return strange(engine, handle)
    this.#sweep?.noteRun(agentOf(handle))
    await using scope = new Scope(signal)
    let shipper: LogShipper | undefined
    const onSight = (info: ContainerInfo) => {
      this.#isAutoRemoved.set(id, info.Config.Labels[label.autoRemove] === 'true')
      if (info.Config.Labels[label.streamOutput] === 'false') return
      const begun = new LogShipper(this.#logSource(engine, info), this.#positionPath(handle), output)
      shipper = begun
      scope.spawn(stop => begun.ship(stop))
    }
    const restMs = (this.#restsUntil.get(id) ?? 0) - performance.now()
    this.#restsUntil.delete(id)
    const ended = await watch.ended(id, { onSight, restMs }, scope.signal).catch(async error => {
      // A failure in the scope is the cause of its abort.
      await scope.join()
      throw error
    })
    shipper?.noteEnd()
    await scope.join()
    signal.throwIfAborted()
    return readExit(ended, await this.#tailOf(engine, ended, shipper, signal))
  }

  async kill(handle: Handle, graceSeconds: number, signal: AbortSignal): Promise<void> {
    const { engine } = await this.#connect()
    const id = idOf(engine, handle)
    if (id === undefined) return
    await killContainer({ engine, id, graceSeconds, logger: this.#options.logger }, signal)
  }

  async reattach(attempt: Attempt, handle: Handle | undefined, signal: AbortSignal): Promise<Handle | undefined> {
    // A handle says that it was started. If the container is gone meanwhile, `wait` says so.
    if (handle) return handle
    const { engine } = await this.#connect()
    const { logger } = this.#options
    const marks = [`${label.flowRunId}=${attempt.flowRunId}`, `${label.transitionId}=${attempt.transitionId}`]
    const find = async () => {
      for (const { Id } of await engine.list(marks, true, signal)) {
        // What has only been created is removed, or it would not be true that it will not start later.
        await nextGeneration(this.#options.runsDirectory, attempt)
        if (await discardOnce(engine, Id, signal)) return toHandle(engine, Id, attempt)
      }
      return undefined
    }
    return await patiently(find, { logger }, signal)
  }

  async release(handle: Handle, signal: AbortSignal): Promise<void> {
    const { engine } = await this.#connect()
    const id = idOf(engine, handle)
    if (id === undefined) return
    const { logger } = this.#options
    const remove = async () => {
      const known =
        this.#isAutoRemoved.get(id) ?? (await engine.inspect(id, signal))?.Config.Labels[label.autoRemove] === 'true'
      if (known) await engine.remove(id, signal)
    }
    try {
      await patiently(remove, { logger, limitMs: 30_000 }, signal)
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof EngineError)) throw error
      // The collection of finished containers finds it later.
      logger.warn({ container: id.slice(0, 12), err: error.message }, 'container could not be removed')
    }
    this.#isAutoRemoved.delete(id)
    await forgetPosition(this.#positionPath(handle))
    await forgetGeneration(this.#options.runsDirectory, handle)
    this.#sweep?.noteEnd(agentOf(handle), signal)
  }

  async collect(request: CollectRequest, signal: AbortSignal): Promise<readonly Collectable[]> {
    const { engine, images } = await this.#connect()
    // Containers first: they may be what an image is still needed for.
    const collect = async () => {
      const containers = await collectContainers(engine, request, signal)
      return [...containers, ...(request.images ? await images.collect(request.images, request.dryRun, signal) : [])]
    }
    return await this.#orHostTrouble(collect(), signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sweep?.[Symbol.asyncDispose]()
    const connected = await this.#connected?.catch(() => undefined)
    await connected?.engine[Symbol.asyncDispose]()
  }

  async #connect(): Promise<Connected> {
    this.#connected ??= openConnection(this.#options).catch(error => {
      this.#connected = undefined
      const message = error instanceof Error ? error.message : String(error)
      throw new InfrastructureError(`No Docker engine to use: ${message}`, { blame: 'host', cause: error })
    })
    return await this.#connected
  }

  async #plan(spec: RunSpec, settings: DockerSettings, signal: AbortSignal): Promise<CreatePlan> {
    const { engine } = await this.#connect()
    const engineVersion = await this.#orHostTrouble(engine.version(signal), signal)
    const generation = await readGeneration(this.#options.runsDirectory, spec)
    return buildCreatePlan(spec, settings, { engineVersion, generation, platform: process.platform })
  }

  /** An engine that does not answer before anything was begun: the run is given back, for this is not its fault. */
  async #orHostTrouble<Answer>(answer: Promise<Answer>, signal: AbortSignal): Promise<Answer> {
    try {
      return await answer
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof EngineError)) throw error
      throw new InfrastructureError(error.message, { blame: 'host', cause: error })
    }
  }

  async #tailOf(engine: DockerEngine, ended: Ended, shipper: LogShipper | undefined, signal: AbortSignal) {
    if (!ended.info) return shipper?.tail ?? []
    if (shipper?.hasSeenAll) return shipper.tail
    if (!shipper && ended.info.State.ExitCode === 0) return []
    const tail = await readTail(this.#logSource(engine, ended.info), signal)
    return tail.length > 0 ? tail : (shipper?.tail ?? [])
  }

  #logSource(engine: DockerEngine, info: ContainerInfo) {
    return { engine, id: info.Id, hasTerminal: info.Config.Tty, logger: this.#options.logger }
  }

  #positionPath(handle: Handle): string {
    return join(this.#options.runsDirectory, handle.flowRunId, `docker-${handle.attempt}.json`)
  }
}
