// Decides who fetches a run's code: the agent, or Prefect's own engine where the flow runs.

import { LaunchError } from './errors.ts'
import type { InfrastructureBlock } from './infrastructure-block.ts'

export type Fetcher = 'agent' | 'infrastructure'

/** `fetch` of the job variables, else RIGEL_FETCH of the block's env, else the agent's setting. Throws a LaunchError. */
export function chooseFetcher(
  { env }: Pick<InfrastructureBlock, 'env'>,
  overrides: Readonly<Record<string, unknown>>,
  setting: Fetcher,
): Fetcher {
  const own = overrides.fetch ?? (env.RIGEL_FETCH || undefined)
  if (own === undefined) return setting
  if (own === 'agent' || own === 'infrastructure') return own
  throw new LaunchError('The job variable "fetch" (or RIGEL_FETCH) must be "agent" or "infrastructure".')
}
