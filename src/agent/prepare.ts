// From what the server says of a run to what exactly will be started: fetches the code, then lets launch/ decide.

import { accessSync, constants, rmdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Attempt } from '../infrastructure/infrastructure.ts'
import { entrypointPath, type WorkspaceFact } from '../launch/command.ts'
import { deploymentOverrides, readInfrastructureBlock } from '../launch/infrastructure-block.ts'
import { buildRunSpec, type Launch } from '../launch/run-spec.ts'
import type { BlockDocument, Deployment, FlowRun } from '../prefect/types.ts'
import { fetchCode } from '../storage/fetch.ts'
import { StorageError } from '../storage/storage.ts'
import { makeWorkspace } from '../storage/workspace.ts'
import type { AgentContext } from './agent-context.ts'
import type { Assignment } from './assignment.ts'
import { readEngineShim } from './engine-shim.ts'

let engineShim: Promise<string> | undefined

/** Rejects with a StorageError or LaunchError, sentences for the owner of the run. */
export async function prepareLaunch(
  context: AgentContext,
  assignment: Assignment,
  flowRun: FlowRun,
  attempt: Attempt,
  signal: AbortSignal,
): Promise<Launch> {
  const { deployment, flow, infrastructure } = assignment
  const block = readInfrastructureBlock(infrastructure, deploymentOverrides(deployment))
  if (block.ignoredOverrides.length > 0) {
    const fields = { flow_run_id: flowRun.id, overrides: block.ignoredOverrides }
    context.logger.warn(fields, 'the deployment has no infrastructure block, so its overrides have no effect')
  }
  const workspace = await fetchWorkspace(context, assignment, flowRun.id, signal)
  const { baseEnvironment, python, prefectVersion, enhancedCancellation } = context.settings.launch
  return buildRunSpec({
    attempt,
    flowRun,
    deployment,
    flowName: flow?.name,
    block,
    workspace,
    found: lookAtEntrypoint(deployment, workspace),
    baseEnvironment,
    python,
    engineShim: await readShimOnce(),
    prefectVersion,
    enhancedCancellation,
  })
}

function readShimOnce(): Promise<string> {
  engineShim ??= readEngineShim()
  return engineShim
}

/** The run's folder with the code, or undefined when there is none to fetch. */
async function fetchWorkspace(
  context: AgentContext,
  { deployment, storage }: Assignment,
  flowRunId: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const facts = {
    path: deployment.path,
    entrypoint: deployment.entrypoint,
    pull_steps: deployment.pull_steps,
    storage: storage && { slug: slugOf(storage), data: storage.data ?? {} },
  }
  let isEmpty = false
  const place = { root: context.journal.directory(flowRunId), name: 'workspace' }
  const workspace = await makeWorkspace(
    place,
    async (directory, until) => {
      isEmpty = (await fetchCode(facts, directory, context.storage, until)) === 'nothing to fetch'
    },
    signal,
  )
  if (!isEmpty) return workspace
  rmdirSync(workspace)
  return undefined
}

function slugOf(block: BlockDocument): string {
  const slug = block.block_schema?.block_type?.slug ?? block.block_type?.slug
  if (!slug) throw new StorageError(`Storage block "${block.name ?? block.id}" does not say its block type`)
  return slug
}

function lookAtEntrypoint(deployment: Deployment, workspace: string | undefined): WorkspaceFact {
  const path = deployment.entrypoint ? entrypointPath(deployment.entrypoint) : undefined
  if (workspace === undefined || path === undefined) return 'missing'
  const file = join(workspace, path)
  if (!statSync(file, { throwIfNoEntry: false })?.isFile()) return 'missing'
  try {
    accessSync(file, constants.X_OK)
    return 'executable'
  } catch {
    return 'file'
  }
}
