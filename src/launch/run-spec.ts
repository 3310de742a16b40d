// The whole decision of this room: everything that is known of one run, turned into exactly what will be started.
//
// In: values that were read elsewhere (wire objects, workspace, facts, settings). Out: a RunSpec for the driver of `type`
// and who will report what the run does. No file, no variable and no clock is read here.

import type { Attempt, CodeRecipe, RunSpec, Value } from '../infrastructure/infrastructure.ts'
import type { Deployment, FlowRun } from '../prefect/types.ts'
import { type CommandPlan, planCommand, type WorkspaceFact } from './command.ts'
import { buildEnvironment } from './environment.ts'
import { LaunchError } from './errors.ts'
import { deploymentOverrides, type InfrastructureBlock } from './infrastructure-block.ts'
import { buildLabels } from './labels.ts'
import { choosePython, type PythonChoice } from './python.ts'

/** Names of the files beside a run. */
export const engineShimFile = 'engine-shim.py'
export const parametersFile = 'parameters.json'

/** Pull steps that were done before the launch, for the engine that does the others. */
export interface PulledSteps {
  /** How many of the deployment's steps need not be run again. */
  readonly taken: number
  readonly outputs: readonly { readonly id: string | undefined; readonly output: Readonly<Record<string, string>> }[]
  /** How many are left. */
  readonly left: number
}

export interface LaunchInput {
  readonly attempt: Attempt
  readonly flowRun: Pick<FlowRun, 'id' | 'name' | 'parameters'>
  readonly deployment: Pick<Deployment, 'name' | 'updated' | 'entrypoint' | 'infra_overrides' | 'job_variables'>
  /** Undefined when it was not read; only a label depends on it. */
  readonly flowName: string | undefined
  readonly block: InfrastructureBlock
  /** Directory on this machine with the fetched code; undefined: the infrastructure gets its code by itself. */
  readonly workspace: string | undefined
  /** Where in it the run begins; '' is the top. */
  readonly startFolder?: string | undefined
  /** How it can be fetched once more elsewhere; undefined: it cannot. */
  readonly recipe?: CodeRecipe | undefined
  /** The pull steps that brought the workspace; undefined when there were none, or none was done. */
  readonly steps: PulledSteps | undefined
  /** What is at `entrypointPath(deployment.entrypoint)` in the start folder; `missing` without a workspace. */
  readonly found: WorkspaceFact
  /** Prefect's settings that every run gets, such as PREFECT_API_URL and PREFECT_API_KEY. */
  readonly baseEnvironment: Readonly<Record<string, string>>
  readonly python: PythonChoice
  /** The text of engine-shim.py. */
  readonly engineShim: string
  /** For labels: the Prefect version that the agent stands in for. */
  readonly prefectVersion: string
  /** PREFECT_EXPERIMENTAL_ENABLE_ENHANCED_CANCELLATION, true by default: containers then run Prefect's runner. */
  readonly enhancedCancellation: boolean
}

export interface Launch {
  readonly type: string
  readonly spec: RunSpec
  /**
   * Who tells the server what the run does. `engine`: Prefect's own, started by us or by the block's command.
   * `agent`: the run is a program that knows nothing of Prefect. `command`: the block's command, in its own way or not at all.
   */
  readonly reports: 'engine' | 'agent' | 'command'
}

/** Throws a LaunchError when there is nothing that could be run. */
export function buildRunSpec(input: LaunchInput): Launch {
  const { attempt, flowRun, block, workspace } = input
  const plan = planCommand({
    blockCommand: block.command,
    entrypoint: input.deployment.entrypoint,
    found: workspace === undefined ? 'missing' : input.found,
  })
  const stepsLeft = input.steps?.left ?? 0
  if (plan.kind === 'executable' && stepsLeft > 0) {
    throw new LaunchError(
      `${stepsLeft} of the deployment's pull steps can only be run by Prefect's engine, but its entrypoint is a program: use steps that only fetch, such as git_clone.`,
    )
  }
  const usesShim = plan.kind === 'engine' && (block.type === 'process' || workspace !== undefined)
  const takesParameters = plan.kind === 'executable' || (block.type === 'process' && !isEngine(plan))
  const facts: Record<string, Value> = {}
  if (workspace !== undefined) facts.RIGEL_WORKSPACE = { in: 'workspace', path: '' }
  if (usesShim && stepsLeft > 0) facts.RIGEL_PULLED_STEPS = buildPulledSteps(input.steps)
  if (takesParameters) facts.RIGEL_PARAMETERS_FILE = { in: 'files', path: parametersFile }
  const spec: RunSpec = {
    ...attempt,
    name: block.name ?? flowRun.name,
    settings: block.settings,
    command: buildCommand(input, plan, usesShim),
    ...buildEnvironment({ base: input.baseEnvironment, flowRunId: flowRun.id, blockEnv: block.env, facts }),
    labels: buildLabels(input),
    workspace,
    ...(input.startFolder ? { startFolder: input.startFolder } : {}),
    ...(input.recipe ? { recipe: input.recipe } : {}),
    files: {
      ...(usesShim ? { [engineShimFile]: input.engineShim } : {}),
      ...(takesParameters ? { [parametersFile]: JSON.stringify(flowRun.parameters ?? {}) } : {}),
    },
  }
  return {
    type: block.type,
    spec,
    reports: isEngine(plan) ? 'engine' : plan.kind === 'executable' ? 'agent' : 'command',
  }
}

/** As engine-shim.py reads it. */
function buildPulledSteps(steps: PulledSteps | undefined): string {
  const outputs = steps?.outputs.map(({ id, output }) => (id === undefined ? output : { ...output, id }))
  return JSON.stringify({ taken: steps?.taken, outputs })
}

function isEngine(plan: CommandPlan): boolean {
  return plan.kind === 'engine' || (plan.kind === 'command' && plan.isEngine)
}

function buildCommand(input: LaunchInput, plan: CommandPlan, usesShim: boolean): readonly Value[] {
  if (plan.kind !== 'engine') return plan.command
  const python = choosePython(input.block, deploymentOverrides(input.deployment), input.python)
  if (usesShim) return [python, { in: 'files', path: engineShimFile }]
  // Without code from us a container gets what Prefect gives it: its runner fetches the code and watches for cancelling.
  return input.enhancedCancellation ? ['prefect', 'flow-run', 'execute'] : [python, '-m', 'prefect.engine']
}
