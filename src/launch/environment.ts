// Puts together the variables of a run: the base that every run gets, the run's id, the block's own, and ours.

import type { RunSpec, Value } from '../infrastructure/infrastructure.ts'
import { LaunchError } from './errors.ts'

/**
 * In Prefect's order: base < `PREFECT__FLOW_RUN_ID` < block; a block may even replace the id. `facts` come last, for they
 * name places that exist (workspace, parameters file). A null in the block unsets the variable, also one that the agent
 * itself or the image has. Throws a LaunchError for a name that no process can have.
 */
export function buildEnvironment(input: {
  /** Prefect's settings of the agent (API URL, key ...) that it hands on. */
  readonly base: Readonly<Record<string, string>>
  readonly flowRunId: string
  readonly blockEnv: Readonly<Record<string, string | null>>
  readonly facts: Readonly<Record<string, Value>>
}): Pick<RunSpec, 'env' | 'unsetEnv'> {
  const merged = new Map<string, Value | null>([
    ...Object.entries(input.base),
    ['PREFECT__FLOW_RUN_ID', input.flowRunId],
    ...Object.entries(input.blockEnv),
    ...Object.entries(input.facts),
  ])
  const env: [string, Value][] = []
  const unsetEnv: string[] = []
  for (const [name, value] of merged) {
    if (name === '' || /[=\0]/.test(name)) {
      throw new LaunchError(`Environment variable ${JSON.stringify(name)} has a name that no process can have.`)
    }
    if (typeof value === 'string' && value.includes('\0')) {
      throw new LaunchError(`Environment variable "${name}" holds a NUL character, which no process can have.`)
    }
    if (value === null) unsetEnv.push(name)
    else env.push([name, value])
  }
  return { env: Object.fromEntries(env), unsetEnv }
}
