// The one write that must not happen twice and must not get lost: the proposal of a state.
//
// The server takes PENDING and RUNNING also after COMPLETED, so a blind repeat could run a finished run again. Each
// proposal carries a transition id of its own, which the run shows for as long as that state is its present one.

import type { Api } from './api.ts'
import { undefinedIfNotFound } from './errors.ts'
import type { ProposedState } from './states.ts'
import { FlowRun, OrchestrationResult, type State } from './types.ts'

export interface Proposal {
  /** The flow run's. */
  readonly id: string
  readonly state: ProposedState
  readonly force: boolean
  readonly claim: boolean
}

/** A claim is sent once, whatever happens. Anything else is looked up before it is sent again. */
export async function proposeState(
  api: Api,
  { id, state, force, claim }: Proposal,
  signal: AbortSignal,
): Promise<OrchestrationResult> {
  let isRepeated = false
  const lookup = async (signal: AbortSignal): Promise<OrchestrationResult | undefined> => {
    isRepeated = true
    const read = api.call({ route: 'GET /flow_runs/{id}', params: { id }, schema: FlowRun, retry: 'safe' }, signal)
    const run = await undefinedIfNotFound(read)
    return isOurs(run?.state, state) ? accepted(run?.state ?? null) : undefined
  }
  const result = await api.call(
    {
      route: 'POST /flow_runs/{id}/set_state',
      params: { id },
      body: { state: { data: null, ...state }, force },
      schema: OrchestrationResult,
      retry: claim ? 'never' : { lookup },
    },
    signal,
  )
  // The first try had arrived after all, after the look: the server calls the second one a duplicate.
  return isRepeated && result.status === 'REJECT' && isOurs(result.state, state) ? accepted(result.state) : result
}

/** The type counts, too: where the server writes another state than the one proposed, that may carry our id. */
function isOurs(current: State | null | undefined, proposed: ProposedState): boolean {
  const transitionId = current?.state_details.transition_id
  return current?.type === proposed.type && transitionId === proposed.state_details.transition_id
}

function accepted(state: State | null): OrchestrationResult {
  return { state, status: 'ACCEPT', details: { reason: null, delay_seconds: null } }
}
