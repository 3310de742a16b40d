// The states that the agent proposes, as they go over the wire. Pure.
//
// Only these keys are sent: 3.x answers 422 to any other (`id`, `timestamp`), see server/schemas/actions.py there.

import { randomUUID } from 'node:crypto'
import type { StateType } from './types.ts'

export interface ProposedState {
  readonly type: StateType
  readonly name: string
  readonly message: string | null
  /** Only to put a former state back as it was; null when left out. */
  readonly data?: unknown
  readonly state_details: {
    /** The server refuses the same one twice in a row, which makes a repeat harmless. */
    readonly transition_id: string
    readonly scheduled_time?: string
  }
}

export interface StateOptions {
  readonly message?: string | undefined
  /** Default: a fresh one. */
  readonly transitionId?: string | undefined
  /** Default: the type's own name, `Running` for RUNNING. */
  readonly name?: string | undefined
}

/** A claim. Its transition id is in the journal already. */
export function buildPending(options: StateOptions & { readonly transitionId: string }): ProposedState {
  return buildState('PENDING', options)
}

export function buildRunning(options: StateOptions = {}): ProposedState {
  return buildState('RUNNING', options)
}

/** Gives a run back, or puts it off. `scheduledTime` is an ISO time by the server's clock. */
export function buildScheduled({
  scheduledTime,
  ...options
}: StateOptions & { readonly scheduledTime: string }): ProposedState {
  const state = buildState('SCHEDULED', options)
  return { ...state, state_details: { ...state.state_details, scheduled_time: scheduledTime } }
}

export function buildState(type: StateType, { message, transitionId, name }: StateOptions = {}): ProposedState {
  return {
    type,
    name: name ?? type.charAt(0) + type.slice(1).toLowerCase(),
    // Half a surrogate pair, which an engine's answer may hold, makes the server refuse the whole state.
    message: message?.toWellFormed() ?? null,
    state_details: { transition_id: transitionId ?? randomUUID() },
  }
}

const TERMINAL: readonly StateType[] = ['COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED']

export function isTerminal(type: StateType | null | undefined): boolean {
  return type !== null && type !== undefined && TERMINAL.includes(type)
}

/** Someone wants it stopped: CANCELLING, or the CANCELLED named `Cancelling` of Prefect before 2.8. */
export function isCancelling(
  state: { readonly type: StateType; readonly name: string | null } | null | undefined,
): boolean {
  if (!state) return false
  return state.type === 'CANCELLING' || (state.type === 'CANCELLED' && state.name === 'Cancelling')
}
