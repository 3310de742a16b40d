// Decides who fetches a run's code: the agent, or Prefect's own engine where the flow runs.

import { LaunchError } from './errors.ts'
import type { InfrastructureBlock } from './infrastructure-block.ts'

export type Fetcher = 'agent' | 'infrastructure'

/**
 * `fetch` of the job variables, else RIGEL_FETCH of the block's env; undefined: nobody has asked for one of them, so the
 * agent's setting decides. Throws a LaunchError.
 */
export function readAskedFetcher(
  { env }: Pick<InfrastructureBlock, 'env'>,
  overrides: Readonly<Record<string, unknown>>,
): Fetcher | undefined {
  const own = overrides.fetch ?? (env.RIGEL_FETCH || undefined)
  if (own === undefined || own === 'agent' || own === 'infrastructure') return own
  throw new LaunchError('The job variable "fetch" (or RIGEL_FETCH) must be "agent" or "infrastructure".')
}
