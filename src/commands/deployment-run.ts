// `rigel deployment run`: start a run of a deployment, and stay with it when asked to.

import { text as readAll } from 'node:stream/consumers'
import * as v from 'valibot'
import { ConfigError } from '../config/config-error.ts'
import type { NewFlowRun } from '../prefect/requests.ts'
import { withSession } from './connect.ts'
import type { Context } from './context.ts'
import { findDeployment } from './deployment.ts'
import { writeLogs } from './flow-run-logs.ts'
import { watchRun } from './flow-run-watch.ts'
import { type Call, firstArgument, isGiven, readOptions, table, text, texts } from './options.ts'
import { printJson } from './output.ts'

const RunOptions = v.object({
  param: texts,
  params: text,
  name: text,
  tag: texts,
  startIn: v.optional(
    v.pipe(
      v.string(),
      v.transform(Number),
      v.check(value => value >= 0, 'expected seconds'),
    ),
  ),
  startAt: v.optional(
    v.pipe(
      v.string(),
      v.check(value => !Number.isNaN(Date.parse(value)), 'expected an ISO time'),
    ),
  ),
  watch: isGiven,
})
type RunOptions = v.InferOutput<typeof RunOptions>

/** Resolves to the exit code: with `--watch` 0 only for a run that has Completed. */
export async function runDeployment(context: Context, call: Call): Promise<number> {
  const options = readOptions(RunOptions, call.options)
  const body = await buildRun(options)
  return await withSession(context, async ask => {
    const run = await ask(async (client, signal) => {
      const deployment = await findDeployment(client, firstArgument(call), signal)
      const start =
        options.startIn === undefined ? options.startAt : client.serverNow().valueOf() + options.startIn * 1000
      const state = start === undefined ? {} : { state: buildScheduled(new Date(start)) }
      return await client.createFlowRunFromDeployment(deployment.id, { ...body, ...state }, signal)
    })
    const isJson = context.format === 'json'
    if (!options.watch) {
      if (isJson) printJson(context, run)
      else context.stdout.write(`created flow run "${run.name}" (${run.id})\n`)
      return 0
    }
    context.stderr.write(`created flow run "${run.name}" (${run.id})\n`)
    // With JSON, stdout is for the run alone.
    return await watchRun(context, ask, run.id, lines => writeLogs(isJson ? context.stderr : context.stdout, lines))
  })
}

function buildScheduled(time: Date): NonNullable<NewFlowRun['state']> {
  return { type: 'SCHEDULED', state_details: { scheduled_time: time.toISOString() } }
}

async function buildRun({ param, params, name, tag }: RunOptions): Promise<NewFlowRun> {
  return {
    parameters: { ...(await readParameters(params)), ...readPairs(param) },
    ...(name === undefined ? {} : { name }),
    ...(tag.length === 0 ? {} : { tags: tag }),
  }
}

/** `--params`: a JSON object, or `-` for one on standard input. */
export async function readParameters(given: string | undefined): Promise<Record<string, unknown>> {
  if (given === undefined) return {}
  const json = given === '-' ? await readAll(process.stdin) : given
  const result = v.safeParse(v.pipe(v.string(), v.parseJson(), table), json)
  if (result.success) return result.output
  throw new ConfigError('Could not use --params: expected a JSON object.')
}

/** `-p key=value`: the value is JSON when it can be read as such, else a text, as in Prefect's own command. */
export function readPairs(pairs: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(
    pairs.map(pair => {
      const at = pair.indexOf('=')
      if (at < 1) throw new ConfigError(`Could not use --param ${JSON.stringify(pair)}: expected KEY=VALUE.`)
      return [pair.slice(0, at), readJsonOrText(pair.slice(at + 1))]
    }),
  )
}

function readJsonOrText(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
