// `rigel flow-run`: look at runs, read their logs, cancel them.

import * as v from 'valibot'
import { UserError } from '../errors.ts'
import type { PrefectClient } from '../prefect/client.ts'
import type { FlowRunsFilter } from '../prefect/requests.ts'
import { buildState } from '../prefect/states.ts'
import { type FlowRun, stateTypes } from '../prefect/types.ts'
import { withClient, withSession } from './connect.ts'
import type { Context } from './context.ts'
import { readFlowNames } from './deployment.ts'
import { LogReader, writeLogs } from './flow-run-logs.ts'
import { watchRun } from './flow-run-watch.ts'
import { type Call, firstArgument, isGiven, readOptions, text, texts, wholeNumber } from './options.ts'
import { printJson, printTable, printThing } from './output.ts'

const ListOptions = v.object({
  limit: v.optional(wholeNumber(1), '20'),
  state: texts,
  flow: text,
  queue: text,
  upcoming: isGiven,
})

export async function listRuns(context: Context, call: Call): Promise<void> {
  const { limit, state, flow, queue, upcoming } = readOptions(ListOptions, call.options)
  const { types, names } = readStates(state)
  const runs = await withClient(context, async (client, signal) => {
    // A schedule fills the list with its next hundred runs; those are for people who ask for them.
    const now = new Date(client.serverNow()).toISOString()
    const filter: FlowRunsFilter = {
      ...(flow === undefined ? {} : { flows: { name: { any_: [flow] } } }),
      flow_runs: {
        ...(types.length + names.length === 0 ? {} : { state: buildStateFilter(types, names) }),
        expected_start_time: upcoming ? { after_: now } : { before_: now },
        ...(queue === undefined ? {} : { work_queue_name: { any_: [queue] } }),
      },
      sort: upcoming ? 'EXPECTED_START_TIME_ASC' : 'EXPECTED_START_TIME_DESC',
    }
    const found: FlowRun[] = []
    while (found.length < limit) {
      const wanted = Math.min(200, limit - found.length)
      const page = await client.readFlowRuns({ ...filter, limit: wanted, offset: found.length }, signal)
      found.push(...page)
      if (page.length < wanted) break
    }
    const flowNames = await readFlowNames(client, found, signal)
    return found.map(run => ({ ...run, flow_name: flowNames.get(run.flow_id) ?? run.flow_id }))
  })
  if (context.format === 'json') return printJson(context, runs)
  await printTable(
    context,
    ['id', 'flow', 'name', 'state', 'queue', 'expected start'],
    runs.map(run => [run.id, run.flow_name, run.name, run.state_name, run.work_queue_name, run.expected_start_time]),
  )
}

/** State types in any case (`running`), else state names (`Late`). */
function readStates(states: readonly string[]): { types: (typeof stateTypes)[number][]; names: string[] } {
  const types = stateTypes.filter(type => states.some(state => state.toUpperCase() === type))
  const names = states.filter(state => !types.some(type => type === state.toUpperCase()))
  return { types, names }
}

function buildStateFilter(types: (typeof stateTypes)[number][], names: string[]) {
  return {
    ...(types.length > 0 ? { type: { any_: types } } : {}),
    ...(names.length > 0 ? { name: { any_: names } } : {}),
  }
}

export async function inspectRun(context: Context, call: Call): Promise<void> {
  await printThing(context, await withClient(context, (client, signal) => findRun(client, firstArgument(call), signal)))
}

export async function showLogs(context: Context, call: Call): Promise<number> {
  const { follow } = readOptions(v.object({ follow: isGiven }), call.options)
  const id = firstArgument(call)
  return await withSession(context, async ask => {
    const run = await ask((client, signal) => findRun(client, id, signal))
    if (follow) return await watchRun(context, ask, run.id, lines => writeLogs(context.stdout, lines))
    const lines = await ask((client, signal) => new LogReader(run.id).readNew(client, signal))
    if (context.format === 'json') printJson(context, lines)
    else writeLogs(context.stdout, lines)
    return 0
  })
}

export async function cancelRun(context: Context, call: Call): Promise<void> {
  const id = firstArgument(call)
  const run = await withClient(context, async (client, signal) => {
    const found = await findRun(client, id, signal)
    const result = await client.setFlowRunState(found.id, buildState('CANCELLING'), {}, signal)
    if (result.status !== 'ACCEPT' && result.status !== 'REJECT') {
      const reason = result.details?.reason ?? 'the server gives no reason'
      throw new UserError(`Could not cancel the flow run ${found.id} (${found.state_name}): ${reason}`)
    }
    return { ...found, state: result.state, state_type: result.state?.type, state_name: result.state?.name }
  })
  if (context.format === 'json') return printJson(context, run)
  context.stdout.write(`flow run "${run.name}" (${run.id}) is ${run.state_name}\n`)
}

/** By id; people copy them, so a prefix or a name would be a guess. */
async function findRun(client: PrefectClient, id: string, signal: AbortSignal): Promise<FlowRun> {
  const isId = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id)
  const run = isId ? await client.readFlowRun(id, signal) : undefined
  if (run) return run
  const hint = '`rigel flow-run ls` lists the latest runs.'
  throw new UserError(isId ? `There is no flow run ${id}.` : `"${id}" is not the id of a flow run.`, { hint })
}
