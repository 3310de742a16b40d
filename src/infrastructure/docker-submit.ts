// Starts one container for one attempt, exactly once, whatever is lost on the way.
//
//   create ── name taken or answer lost ──> look ── ours ──> adopt it
//     │                                      └── a stranger's ──> another name
//   created ──> networks, code and files ──> start ── answer lost ──> look ── created ──> new ticket, start again
//                                              └──────────────────────────────┴── else ──> it has been started
//
// Creating is not starting: the engine's state `created` says that nothing has run. The container's *name* is the ticket
// for its start, which is asked for by name: once the container is renamed, a start that was sent before and is still on
// its way finds nothing. So after a rename, `created` means that nothing has run nor will.

import { jitter, sleep } from '../async/sleep.ts'
import { errorCode } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { ContainerInfo } from './docker-answers.ts'
import { type Cargo, isEmpty, packArchive } from './docker-archive.ts'
import { type CreatePlan, isOurs } from './docker-create.ts'
import type { DockerEngine } from './docker-engine.ts'
import { explainStartFailure, isHostTrouble, isTooLate } from './docker-exit.ts'
import { callOrLook, patiently } from './docker-patience.ts'
import { discard, engineAwayMs, hasStarted, nameOf, removedTooEarly, takeTicket } from './docker-ticket.ts'
import { EngineError, isRefusal, isSilence } from './docker-transport.ts'
import { findOwner } from './docker-user.ts'
import { type Attempt, InfrastructureError } from './infrastructure.ts'

/** How often a refusal of the engine's own (5xx) is answered with another try. */
const refusalTries = 3
/** How long a container that somebody else has created is left to be started by them, in milliseconds. */
const othersTurnMs = 3_000

export interface Launch {
  readonly engine: DockerEngine
  readonly plan: CreatePlan
  readonly attempt: Attempt
  readonly cargo: Cargo
  /** Called when the engine does not have the image; throws an InfrastructureError when it may or can not be pulled. */
  readonly fetchImage: (signal: AbortSignal) => Promise<void>
  readonly logger: Logger
}

/** Gives the container's id once it has been started; throws an InfrastructureError, or the signal's reason. */
export async function launchContainer(launch: Launch, signal: AbortSignal): Promise<string> {
  const found = await obtain(launch, signal)
  if (found.hasStarted) return found.id
  try {
    await prepare(launch, found.id, signal)
    await startOnce(launch, found, signal)
    return found.id
  } catch (error) {
    const wasStarted = await discard(launch.engine, found.id, launch.logger)
    // Only a start that came through in the last moment contradicts a failure; a stop is the caller's own wish.
    if (wasStarted && !signal.aborted) return found.id
    throw error
  }
}

interface Obtained {
  readonly id: string
  /** Its name, by which alone it is started. */
  readonly ticket: string
  readonly hasStarted: boolean
}

async function obtain(launch: Launch, signal: AbortSignal): Promise<Obtained> {
  const { engine, plan, attempt } = launch
  let { name } = plan
  let mayBeOurs = false
  let fetches = 0
  let refusals = 0
  const startMs = performance.now()
  for (let pauseMs = 200; ; pauseMs = Math.min(pauseMs * 2, 2_000)) {
    try {
      const look = async (s: AbortSignal) => {
        const info = await engine.inspect(name, s)
        return info && isOurs(info.Config.Labels, attempt) ? info.Id : undefined
      }
      const id = await callOrLook(s => engine.create(name, plan.body, s), look, signal)
      return { id, ticket: name, hasStarted: false }
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof EngineError)) throw error
      if (isRefusal(error, 404) && isMissingImage(error.message) && fetches < 2) {
        fetches += 1
        await launch.fetchImage(signal)
        continue
      }
      if (isNameTaken(error)) {
        const info = await patiently(() => engine.inspect(name, signal), launchPatience(launch), signal)
        if (info && isOurs(info.Config.Labels, attempt)) return await adopt(launch, info, mayBeOurs, signal)
        // Somebody else's container has our name: the whole transition id cannot be taken by chance as well.
        if (info) name = takenName(name, plan.name, attempt)
      } else if (isSilence(error)) {
        mayBeOurs ||= error.kind === 'lost'
        if (performance.now() - startMs > engineAwayMs) throw toError(error, 'host')
      } else {
        refusals += 1
        if (isHostTrouble(error.message)) throw toError(error, 'host')
        if ((error.status ?? 0) < 500 || refusals >= refusalTries) throw toError(error, 'run')
      }
      launch.logger.debug({ container: name, err: error.message }, 'create call failed, trying again')
      await sleep(jitter(pauseMs, 0.3), signal)
      signal.throwIfAborted()
    }
  }
}

function ticketOf({ engine, logger, plan }: Launch) {
  return { engine, logger, name: plan.name }
}

function launchPatience({ logger }: Launch): { readonly logger: Logger; readonly limitMs: number } {
  return { logger, limitMs: engineAwayMs }
}

function takenName(name: string, first: string, attempt: Attempt): string {
  if (name !== first) {
    throw new InfrastructureError(`Could not create container "${first}": that name is taken by another container`, {
      blame: 'run',
    })
  }
  return `${first}-${attempt.transitionId}`
}

function isMissingImage(message: string): boolean {
  return /no such image|image not known|no image found/i.test(message)
}

/** Podman says it with 500. */
function isNameTaken(error: EngineError): boolean {
  return isRefusal(error, 409) || (isRefusal(error, 500) && /name .*is already in use/i.test(error.message))
}

/** `isOurOwn`: a create call of this submission made it, whose answer was lost; nobody else has a start under way. */
async function adopt(launch: Launch, info: ContainerInfo, isOurOwn: boolean, signal: AbortSignal): Promise<Obtained> {
  const { engine, logger } = launch
  const id = info.Id
  logger.debug({ container: id.slice(0, 12), state: info.State.Status }, 'adopting container')
  if (hasStarted(info)) return { id, ticket: '', hasStarted: true }
  if (isOurOwn) return { id, ticket: nameOf(info), hasStarted: false }
  const startMs = performance.now()
  while (performance.now() - startMs < othersTurnMs) {
    await sleep(jitter(200, 0.3), signal)
    signal.throwIfAborted()
    const now = await patiently(() => engine.inspect(id, signal), launchPatience(launch), signal)
    if (now && hasStarted(now)) return { id, ticket: '', hasStarted: true }
  }
  const ticket = await takeTicket(ticketOf(launch), id, signal)
  return { id, ticket: ticket ?? '', hasStarted: ticket === undefined }
}

async function prepare(launch: Launch, id: string, signal: AbortSignal): Promise<void> {
  const { engine, plan, cargo } = launch
  const patience = { ...launchPatience(launch), refusals: refusalTries }
  for (const network of plan.moreNetworks) {
    const connect = async () => {
      try {
        await engine.connectNetwork(network, id, signal)
      } catch (error) {
        // The answer to an earlier try was lost.
        if (!(error instanceof EngineError && /already exists in network/i.test(error.message))) throw error
      }
    }
    await orExplain(patiently(connect, patience, signal), signal)
  }
  if (isEmpty(cargo)) return
  const send = async () => {
    const info = await engine.inspect(id, signal)
    if (!info) throw removedTooEarly(plan.name)
    const owner = await findOwner(engine, id, info.Config.User, signal)
    await engine.upload(id, { path: plan.filesRoot, archive: packArchive(cargo, owner, plan.filesRoot) }, signal)
  }
  await orExplain(patiently(send, patience, signal), signal)
}

async function startOnce(launch: Launch, { id, ticket: first }: Obtained, signal: AbortSignal): Promise<void> {
  const { engine, plan, logger } = launch
  const look = async (s: AbortSignal) => {
    const info = await engine.inspect(id, s)
    return info && hasStarted(info) ? true : undefined
  }
  let ticket = first
  let wasLate = false
  for (let refusals = 0; ; ) {
    try {
      await callOrLook(s => engine.start(ticket, s).then(() => true), look, signal)
      return
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof EngineError)) throw error
      const info = await patiently(() => engine.inspect(id, signal), launchPatience(launch), signal)
      if (!info) throw removedTooEarly(plan.name)
      if (hasStarted(info)) return
      const lostTicket = nameOf(info) !== ticket
      if (error.kind === 'refused' && !lostTicket) {
        refusals += 1
        const isLate = isTooLate(error.message)
        // The engine notes what stopped a start. Without such a note it was not the engine that refused.
        const isTheEngines = (info.State.Error !== '' && !isLate) || (error.status ?? 0) < 500
        // What a try that came too late has left behind stops the next one: that is no fault of the run's either.
        wasLate ||= isLate
        if (isTheEngines || refusals >= refusalTries) throw wasLate ? toError(error, 'host') : startFailure(error, plan)
      }
      logger.debug({ container: id.slice(0, 12), err: error.message }, 'start call failed, trying again')
      await sleep(jitter(lostTicket ? othersTurnMs : 300, 0.3), signal)
      signal.throwIfAborted()
      const next = await takeTicket(ticketOf(launch), id, signal)
      if (next === undefined) return
      ticket = next
    }
  }
}

function startFailure(error: EngineError, plan: CreatePlan): InfrastructureError {
  if (isHostTrouble(error.message)) return toError(error, 'host')
  return new InfrastructureError(explainStartFailure(error.message, plan.command, plan.image), {
    blame: 'run',
    cause: error,
  })
}

async function orExplain<Answer>(work: Promise<Answer>, signal: AbortSignal): Promise<Answer> {
  try {
    return await work
  } catch (error) {
    signal.throwIfAborted()
    // Reading the workspace on this machine went wrong.
    if (errorCode(error) !== undefined) {
      throw new InfrastructureError('Could not send the flow code to the container', { blame: 'run', cause: error })
    }
    if (!(error instanceof EngineError)) throw error
    throw toError(error, isSilence(error) || isHostTrouble(error.message) ? 'host' : 'run')
  }
}

function toError(error: EngineError, blame: 'run' | 'host'): InfrastructureError {
  return new InfrastructureError(error.message, { blame, cause: error })
}
