// Prefect's `process` block, as far as it decides how a process is started.
//
// In: the block's fields after overrides, as the server sent them. Out: typed settings, or an error that blames the run.
// `command`, `env`, `labels` and `name` are resolved before a driver sees them; they come in the RunSpec.

import * as v from 'valibot'
import { bool } from './block-values.ts'
import { InfrastructureError } from './infrastructure.ts'

const schema = v.object({
  /** Ship output to the agent's own. Without it the output is kept for the explanation of the end only. */
  stream_output: v.nullish(bool, true),
  /** Current directory of the run, taken literally as Prefect does (no `~`). */
  working_dir: v.nullish(v.string(), null),
})

export type ProcessSettings = v.InferOutput<typeof schema>

/** Throws an InfrastructureError that blames the run and names the field. */
export function readProcessSettings(settings: Readonly<Record<string, unknown>>): ProcessSettings {
  const result = v.safeParse(schema, settings)
  if (result.success) return result.output
  const [issue] = result.issues
  const field = v.getDotPath(issue) ?? 'settings'
  throw new InfrastructureError(`The process infrastructure's "${field}" cannot be used: ${issue.message}`, {
    blame: 'run',
  })
}
