// `rigel gc`: clears away what this agent's runs have left with engines, beyond what the settings keep.
//
// Works from labels and the agent's identity alone, so it may run beside the agent, and after its state folder was lost
// (with the same --name). What runs, what the journal still holds and what others own is never touched.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import * as v from 'valibot'
import { readPrefix } from '../agent/identity.ts'
import { UserError } from '../errors.ts'
import { type Collectable, type CollectRequest, InfrastructureError } from '../infrastructure/infrastructure.ts'
import { infrastructureTypes, loadInfrastructure } from '../infrastructure/registry.ts'
import { readCleanupRules } from './agent-options.ts'
import { type Context, createCommandLogger } from './context.ts'
import { type Call, isGiven, readOptions, texts } from './options.ts'
import { printJson, printTable } from './output.ts'

const GcOptions = v.object({ dryRun: isGiven, images: isGiven, all: isGiven, type: texts })

/** Exit code 1 when an engine could not be asked; what the others have left is cleared away all the same. */
export async function collectGarbage(context: Context, call: Call): Promise<number> {
  const { dryRun, images, all, type: asked } = readOptions(GcOptions, call.options)
  const unknown = asked.find(type => !infrastructureTypes.includes(type))
  if (unknown !== undefined) {
    throw new UserError(`There is no infrastructure of type "${unknown}".`, {
      hint: `Known are ${infrastructureTypes.join(', ')}.`,
      exitCode: 2,
    })
  }
  const request = buildRequest(context, { dryRun, images, all })
  const types = asked.length > 0 ? asked : infrastructureTypes
  const found = await Promise.all(types.map(type => collectType(context, type, request)))
  const removed = found.flatMap(one => one.removed ?? [])
  await show(context, removed, dryRun)
  const failed = found.filter(one => one.failure !== undefined)
  for (const { type, failure } of failed) context.stderr.write(`${type}: ${failure}\n`)
  if (failed.length > 0 && failed.length < types.length && asked.length === 0) {
    const others = types.filter(type => !failed.some(one => one.type === type))
    // Not every agent has every engine, but one that is away must not look as if nothing had been left there.
    context.stderr.write(
      `To leave it out, name the others: rigel gc ${others.map(type => `--type ${type}`).join(' ')}\n`,
    )
  }
  return failed.length > 0 ? 1 : 0
}

function buildRequest(
  { config }: Context,
  { dryRun, images, all }: { readonly dryRun: boolean; readonly images: boolean; readonly all: boolean },
): CollectRequest {
  const { stateDir } = config.paths
  if (config.agent.name === undefined && !existsSync(join(stateDir, 'identity'))) {
    throw new UserError(`No agent has used the state directory ${stateDir}.`, {
      hint: 'Give the directory of the agent (--state-dir), or the --name that it has.',
    })
  }
  const cleanup = { ...config.cleanup, removeImages: config.cleanup.removeImages || images }
  const rules = readCleanupRules({ ...config, cleanup })
  const nothing = { keep: 0, maxAgeSeconds: 0 }
  return {
    finished: all ? nothing : rules.finished,
    images: rules.images && (all ? nothing : rules.images),
    agentPrefix: readPrefix(stateDir, config.agent.name),
    isHeld: flowRunId => existsSync(join(stateDir, 'runs', flowRunId)),
    dryRun,
  }
}

interface Found {
  readonly type: string
  /** Undefined when there was nobody to ask: the driver keeps nothing, or see `failure`. */
  readonly removed?: readonly Collectable[]
  readonly failure?: string
}

async function collectType(context: Context, type: string, request: CollectRequest): Promise<Found> {
  const { config, signals } = context
  const driver = await loadInfrastructure(type, {
    runsDirectory: join(config.paths.stateDir, 'runs'),
    logger: createCommandLogger(context),
    outputCapBytes: config.process.outputCapBytes,
    environment: config.inheritedEnvironment,
    inheritEnv: 'all',
  })
  try {
    const removed = await driver.collect?.(request, signals.stopping)
    return removed ? { type, removed } : { type }
  } catch (error) {
    if (!(error instanceof InfrastructureError)) throw error
    return { type, failure: error.message }
  } finally {
    await driver[Symbol.asyncDispose]?.()
  }
}

async function show(context: Context, removed: readonly Collectable[], dryRun: boolean): Promise<void> {
  if (context.format === 'json') {
    return printJson(context, {
      dry_run: dryRun,
      removed: removed.map(one => ({ ...one, since: one.since.toISOString() })),
    })
  }
  if (removed.length > 0) {
    const rows = removed.map(one => [one.kind, one.name, one.flowRunId, one.since.toISOString()])
    await printTable(context, ['kind', 'name', 'flow run', 'since'], rows)
  }
  context.stdout.write(`${dryRun ? 'would remove' : 'removed'} ${removed.length}\n`)
}
