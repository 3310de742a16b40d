// From what the server says of a run to what exactly will be started: fetches the code, then lets launch/ decide.

import { accessSync, constants, rmdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Attempt, CodeRecipe } from '../infrastructure/infrastructure.ts'
import { entrypointPath, type WorkspaceFact } from '../launch/command.ts'
import { readAskedFetcher } from '../launch/fetcher.ts'
import {
  deploymentOverrides,
  type InfrastructureBlock,
  readInfrastructureBlock,
} from '../launch/infrastructure-block.ts'
import { buildRunSpec, type Launch } from '../launch/run-spec.ts'
import type { BlockDocument, Deployment, FlowRun } from '../prefect/types.ts'
import { type CodeFacts, fetchCode, hasCodeToFetch } from '../storage/fetch.ts'
import type { PulledSteps, StepScene } from '../storage/pull-steps.ts'
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
  const code = await fetchWorkspace(context, assignment, block, flowRun.id, signal)
  const workspace = code?.folder
  const { baseEnvironment, python, prefectVersion, enhancedCancellation } = context.settings.launch
  return buildRunSpec({
    attempt,
    flowRun,
    deployment,
    flowName: flow?.name,
    block,
    workspace,
    steps: code?.steps,
    startFolder: code?.startFolder,
    recipe: code?.recipe,
    found: lookAtEntrypoint(deployment, code && join(code.folder, code.startFolder)),
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

interface Workspace {
  /** What goes to where the flow runs. */
  readonly folder: string
  /** Where in it the run begins. */
  readonly startFolder: string
  /** Undefined: the code did not come by pull steps. */
  readonly steps: PulledSteps | undefined
  readonly recipe: CodeRecipe | undefined
}

/** The run's folder with the code, or undefined when there is none to fetch, or the infrastructure is to fetch it. */
async function fetchWorkspace(
  context: AgentContext,
  { deployment, storage }: Assignment,
  block: InfrastructureBlock,
  flowRunId: string,
  signal: AbortSignal,
): Promise<Workspace | undefined> {
  const facts = {
    path: deployment.path,
    pull_steps: deployment.pull_steps,
    storage: storage && { slug: slugOf(storage), data: storage.data ?? {} },
  }
  const scene = buildScene(context, block, signal)
  const asked = readAskedFetcher(block, deploymentOverrides(deployment))
  if ((asked ?? context.settings.launch.fetch) === 'infrastructure') return undefined
  // Who asks for the agent means its own machine by a local path, wherever the flow runs.
  if (!hasCodeToFetch(facts, scene.isHere || asked === 'agent')) return undefined
  let code: Awaited<ReturnType<typeof fetchCode>>
  const place = { root: context.journal.directory(flowRunId), name: 'workspace' }
  const workspace = await makeWorkspace(
    place,
    async (directory, until) => {
      code = await fetchCode(facts, directory, scene, context.storage, until)
    },
    signal,
  )
  if (!code) {
    rmdirSync(workspace)
    return undefined
  }
  const { steps } = code
  // Steps that are left begin where all steps begin; when none is, the flow begins where the last one says.
  const directory = steps?.left === 0 ? steps.directory : ''
  const recipe = buildRecipe(facts, steps)
  // Elsewhere all of it is needed, for other steps have made folders beside that one; here they are there already.
  return scene.isHere
    ? { folder: join(workspace, directory), startFolder: '', steps, recipe }
    : { folder: workspace, startFolder: directory, steps, recipe }
}

/** Placeholders of steps are filled again where they are run again. What lies on this disk only this machine can fetch. */
function buildRecipe({ path, pull_steps, storage }: CodeFacts, steps: PulledSteps | undefined): CodeRecipe | undefined {
  if (steps) return { from: { kind: 'steps', steps: pull_steps?.slice(0, steps.taken) ?? [] } }
  if (!storage || storage.slug === 'local-file-system') return undefined
  return { from: { kind: 'block', ...storage, path: path ?? undefined } }
}

/** What placeholders of pull steps may stand for. */
function buildScene(
  { client, settings, storage }: AgentContext,
  block: InfrastructureBlock,
  signal: AbortSignal,
): StepScene {
  const isHere = block.type === 'process'
  return {
    isHere,
    environment: { ...(isHere ? storage.environment : {}), ...settings.launch.baseEnvironment, ...block.env },
    readers: {
      block: async (slug, name) => dataOf(await client.readBlockDocumentByName(slug, name, signal)),
      blockById: async id => dataOf(await client.readBlockDocument(id, signal)),
      variable: async name => (await client.readVariableByName(name, signal))?.value,
    },
  }
}

function dataOf(block: BlockDocument | undefined) {
  return block && (block.data ?? {})
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
