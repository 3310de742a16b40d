// The commands that talk to a server, against the embedded one and a real Prefect.

import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import * as v from 'valibot'
import { buildState } from '../../src/prefect/states.ts'
import { startChaosProxy } from '../support/chaos-proxy.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { type CliOptions, type Ended, openServer, runCli, startCli, type TestServer } from './support.ts'

const servers = [
  { which: 'embedded', skip: {} },
  { which: 'prefect2', skip: needs('prefect2') },
  { which: 'prefect3', skip: needs('prefect3') },
] as const

for (const { which, skip } of servers) {
  describe(`commands against the ${which} server`, skip, () => {
    test('do their work', async t => {
      await using server = await openServer(which)
      for (const [name, body] of Object.entries(stories)) {
        await t.test(name, async () => body(server))
      }
    })
  })
}

function rigel(server: TestServer, args: readonly string[], options: CliOptions = {}): Promise<Ended> {
  return runCli(args, { ...options, env: { PREFECT_API_URL: server.apiUrl, ...options.env } })
}

/** Runs a command that must end well, and reads its JSON. */
async function json<T>(
  schema: v.GenericSchema<unknown, T>,
  server: TestServer,
  args: readonly string[],
  options: CliOptions = {},
): Promise<T> {
  const { code, stdout, stderr } = await rigel(server, [...args, '--output', 'json'], options)
  assert.equal(code, 0, stderr)
  return v.parse(schema, JSON.parse(stdout))
}

const fields = v.record(v.string(), v.unknown())
const withId = v.looseObject({ id: v.string() })
const forever = new AbortController().signal

async function apply(server: TestServer, content: string): Promise<Ended> {
  await using directory = await makeDirectory()
  const file = join(directory.path, 'deployment.yaml')
  await writeFile(file, content)
  return await rigel(server, ['deployment', 'apply', file])
}

/** A deployment in the short form; `rest` are more lines of it. */
function buildFile(name: string, rest: string): string {
  return `flow: etl\nname: ${name}\nentrypoint: a.py:f\n${rest}\n`
}

async function readDeployment(server: TestServer, flow: string, name: string) {
  const deployment = await server.client.readDeploymentByName(flow, name, forever)
  assert.ok(deployment, `there is no deployment ${flow}/${name}`)
  return deployment
}

const stories: Readonly<Record<string, (server: TestServer) => Promise<void>>> = {
  'a work queue is created, listed, paused and resumed': async server => {
    const created = await json(fields, server, ['work-queue', 'create', 'batch', '--limit', '3'])
    assert.partialDeepStrictEqual(created, { name: 'batch', concurrency_limit: 3, is_paused: false })
    const again = await rigel(server, ['work-queue', 'create', 'batch'])
    assert.equal(again.code, 1)
    assert.match(again.stderr, /"batch" exists already/)
    assert.match((await rigel(server, ['work-queue', 'ls'])).stdout, /^NAME.*\n(.*\n)*batch +default-agent-pool .* 3 /m)
    assert.match((await rigel(server, ['work-queue', 'pause', 'batch'])).stdout, /"batch" is paused/)
    assert.equal((await server.client.readWorkQueueByName('batch', forever))?.is_paused, true)
    assert.equal((await json(fields, server, ['work-queue', 'resume', 'batch'])).is_paused, false)
    assert.equal((await json(fields, server, ['work-queue', 'inspect', 'batch'])).is_paused, false)
    const unknown = await rigel(server, ['work-queue', 'pause', 'none'])
    assert.equal(unknown.code, 1)
    assert.match(unknown.stderr, /no work queue "none".*\nhint: .*work-queue ls/)
  },

  'the short form of a deployment lies beside its code': async server => {
    await using directory = await makeDirectory()
    await mkdir(join(directory.path, 'code'))
    const file = join(directory.path, 'deployment.yaml')
    await writeFile(
      file,
      'flow: etl\nname: short\nentrypoint: ./job.sh --fast\npath: code\nqueue: batch\nparameters: {day: 1}\nschedule: {cron: "0 6 * * *", timezone: Europe/Berlin}\n',
    )
    const { code, stdout, stderr } = await rigel(server, ['deployment', 'apply', file])
    assert.equal(code, 0, stderr)
    assert.match(stdout, /applied deployment "etl\/short"/)
    const deployment = await readDeployment(server, 'etl', 'short')
    assert.partialDeepStrictEqual(deployment, {
      entrypoint: './job.sh --fast',
      path: join(directory.path, 'code'),
      work_queue_name: 'batch',
      parameters: { day: 1 },
      infrastructure_document_id: null,
      schedules: [{ schedule: { cron: '0 6 * * *', timezone: 'Europe/Berlin' }, active: true }],
    })
  },

  'applied again, a deployment keeps its id and takes what has changed': async server => {
    assert.equal((await apply(server, buildFile('again', 'schedule: 3600\ntags: [old]'))).code, 0)
    const first = await readDeployment(server, 'etl', 'again')
    assert.equal(first.schedules?.length, 1)
    assert.equal((await apply(server, buildFile('again', 'tags: [new]'))).code, 0)
    const second = await readDeployment(server, 'etl', 'again')
    assert.equal(second.id, first.id)
    assert.deepEqual(second.tags, ['new'])
    assert.equal(second.schedules?.length, 0)
  },

  "a deployment.yaml of Prefect 2's own is applied with its infrastructure block": async server => {
    const { code, stderr } = await apply(server, prefect2File)
    assert.equal(code, 0, stderr)
    const deployment = await readDeployment(server, 'hello', 'built')
    assert.equal(deployment.path, '/srv/flows')
    assert.equal(deployment.work_queue_name, 'batch')
    assert.deepEqual(deployment.infra_overrides ?? deployment.job_variables, { 'env.A': '2' })
    const block = await server.client.readBlockDocument(deployment.infrastructure_document_id ?? '', forever)
    assert.equal(block?.is_anonymous, true)
    assert.equal(block?.block_schema?.block_type?.slug ?? block?.block_type?.slug, 'process')
    assert.partialDeepStrictEqual(block?.data, { type: 'process', env: { A: '1' }, stream_output: false })
  },

  'named blocks are found on the server, and nothing is applied when one is missing': async server => {
    const type = await server.client.readBlockTypeBySlug('process', forever)
    assert.ok(type)
    const [schema] = await server.client.readBlockSchemas(type.id, forever)
    assert.ok(schema)
    const data = { type: 'process', env: { B: '1' } }
    const ids = { block_type_id: type.id, block_schema_id: schema.id }
    const { id } = await server.client.createBlockDocument({ name: 'small', data, ...ids }, forever)
    assert.equal((await apply(server, buildFile('named', 'infrastructure: process/small'))).code, 0)
    assert.equal((await readDeployment(server, 'etl', 'named')).infrastructure_document_id, id)
    const failed = await apply(
      server,
      `${buildFile('fine', 'infrastructure: process/small')}---\n${buildFile('lost', 'infrastructure: process/none')}`,
    )
    assert.equal(failed.code, 1)
    assert.match(failed.stderr, /no infrastructure block "process\/none"/)
    assert.equal(await server.client.readDeploymentByName('etl', 'fine', forever), undefined)
  },

  'deployments are listed by flow and inspected by name and id': async server => {
    const listed = await json(v.array(fields), server, ['deployment', 'ls', '--flow', 'etl'])
    assert.deepEqual(new Set(listed.map(deployment => deployment.name)), new Set(['again', 'named', 'short']))
    assert.match((await rigel(server, ['deployment', 'ls'])).stdout, /^hello\/built +batch /m)
    const byName = await json(withId, server, ['deployment', 'inspect', 'etl/short'])
    assert.deepEqual(await json(withId, server, ['deployment', 'inspect', byName.id]), byName)
    const unknown = await rigel(server, ['deployment', 'inspect', 'etl/none'])
    assert.equal(unknown.code, 1)
    assert.match(unknown.stderr, /no deployment "etl\/none"/)
  },

  'a run takes parameters as pairs, as JSON and from standard input': async server => {
    const args = ['deployment', 'run', 'etl/short', '--name', 'first', '--tag', 'x', '-p', 'day=2', '-p', 'who=me']
    const run = await json(fields, server, args)
    assert.partialDeepStrictEqual(run, { name: 'first', tags: ['x'], parameters: { day: 2, who: 'me' } })
    const fromInput = await json(fields, server, ['deployment', 'run', 'etl/short', '--params', '-', '-p', 'b=1'], {
      input: '{"a": [1], "b": 0}',
    })
    assert.deepEqual(fromInput.parameters, { day: 1, a: [1], b: 1 })
  },

  'a run can be put off, and is listed among those to come': async server => {
    const before = Date.now()
    const args = ['deployment', 'run', 'etl/again', '--start-in', '3600']
    const later = v.looseObject({ id: v.string(), expected_start_time: v.string() })
    const run = await json(later, server, args)
    const aheadMs = Date.parse(run.expected_start_time) - before
    assert.ok(aheadMs > 3_590_000 && aheadMs < 3_660_000, String(aheadMs))
    const ids = async (...more: string[]) =>
      (await json(v.array(withId), server, ['flow-run', 'ls', '--limit', '50', ...more])).map(({ id }) => id)
    assert.ok((await ids('--upcoming')).includes(run.id))
    assert.ok(!(await ids()).includes(run.id))
  },

  'flow runs are listed by flow, queue and state, and cancelled': async server => {
    const run = await json(withId, server, ['deployment', 'run', 'etl/short'])
    const names = async (...more: string[]) =>
      (await json(v.array(withId), server, ['flow-run', 'ls', ...more])).map(({ id }) => id)
    assert.ok((await names('--flow', 'etl', '--queue', 'batch', '--state', 'scheduled')).includes(run.id))
    assert.ok(!(await names('--flow', 'hello')).includes(run.id))
    const cancelled = await rigel(server, ['flow-run', 'cancel', run.id])
    assert.equal(cancelled.code, 0, cancelled.stderr)
    assert.match(cancelled.stdout, /is Cancell(ed|ing)$/m)
    assert.match(String((await server.client.readFlowRun(run.id, forever))?.state_type), /^CANCELL(ED|ING)$/)
    assert.match(
      (await json(v.looseObject({ state_type: v.string() }), server, ['flow-run', 'inspect', run.id])).state_type,
      /CANCELL/,
    )
    const unknown = await rigel(server, ['flow-run', 'inspect', '00000000-0000-4000-8000-000000000000'])
    assert.equal(unknown.code, 1)
    assert.match(unknown.stderr, /There is no flow run/)
  },

  'a run that is over cannot be cancelled': async server => {
    const run = await json(withId, server, ['deployment', 'run', 'etl/again'])
    await server.client.setFlowRunState(run.id, buildState('COMPLETED'), { force: true }, forever)
    const { code, stderr } = await rigel(server, ['flow-run', 'cancel', run.id])
    assert.equal(code, 1)
    assert.match(stderr, /Could not cancel the flow run .*Completed/)
  },

  'logs are shown in order, across pages': async server => {
    const run = await json(withId, server, ['deployment', 'run', 'etl/again'])
    const start = Date.now() - 60_000
    const lines = Array.from({ length: 230 }, (_, at) => ({
      name: 'prefect.flow_runs',
      level: 20,
      message: `line ${at}`,
      timestamp: new Date(start + at).toISOString(),
      flow_run_id: run.id,
    }))
    await server.client.createLogs(lines, forever)
    const { stdout } = await rigel(server, ['flow-run', 'logs', run.id])
    assert.deepEqual(
      stdout
        .trim()
        .split('\n')
        .map(line => line.replace(/^.* \| /, '')),
      lines.map(line => line.message),
    )
    assert.match(stdout, /^\d\d:\d\d:\d\d\.\d{3} INFO {4}prefect\.flow_runs \| line 0$/m)
  },

  'a watched run shows its states and each log line once, and only Completed gives exit code 0': async server => {
    for (const [end, expected, slowMs] of [
      ['COMPLETED', 0, 0],
      ['FAILED', 1, 3000],
    ] as const) {
      await using proxy = await startChaosProxy(server.apiUrl)
      const started = startCli(['deployment', 'run', 'etl/again', '--watch'], {
        env: { PREFECT_API_URL: proxy.apiUrl },
      })
      const id = /\(([0-9a-f-]{36})\)/.exec(await started.saw(/created flow run .*\n/))?.[1] ?? ''
      const log = async (message: string) => {
        const line = { name: 'x', level: 30, message, timestamp: new Date().toISOString(), flow_run_id: id }
        await server.client.createLogs([line], forever)
      }
      await server.client.setFlowRunState(id, buildState('PENDING'), {}, forever)
      await server.client.setFlowRunState(id, buildState('RUNNING'), {}, forever)
      await log('one')
      await started.saw(/is Running[\s\S]*\| one|\| one[\s\S]*is Running/)
      await log('two')
      // The look that finds the end waits until that is there, those for lines after it until there is one more.
      const [looks, forLines] = ['GET /flow_runs/{id}', 'POST /logs/filter'] as const
      const [over, late] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
      proxy.spoil({ route: looks }, { kind: 'hold', until: over.promise })
      const before = proxy.count(looks)
      await until(() => proxy.count(looks) > before)
      await server.client.setFlowRunState(id, buildState(end, { message: 'so it ends' }), {}, forever)
      proxy.spoil({ route: forLines, times: 1 }, { kind: 'delay', ms: 0 })
      proxy.spoil({ route: forLines }, { kind: 'hold', until: late.promise })
      const overAt = performance.now()
      over.resolve()
      await started.saw(/so it ends/)
      await delay(slowMs)
      await log('late')
      late.resolve()
      const { code, stdout, stderr } = await started.ended
      assert.equal(code, expected, stderr)
      assert.deepEqual(stdout.match(/\| .*$/gm), ['| one', '| two', '| late'])
      // An engine sends its last lines up to 2 s after its last state.
      const lastAt = proxy.requests.findLast(({ route }) => route === forLines)?.at ?? 0
      assert.ok(lastAt - overAt > 2000, `it looked for lines for ${lastAt - overAt} ms`)
    }
  },

  'watching can be given up, and the run goes on': async server => {
    const started = startCli(['deployment', 'run', 'etl/again', '--watch'], { env: { PREFECT_API_URL: server.apiUrl } })
    const id = /\(([0-9a-f-]{36})\)/.exec(await started.saw(/created flow run .*\n/))?.[1] ?? ''
    await started.saw(/is Scheduled/)
    started.kill('SIGINT')
    assert.equal((await started.ended).code, 130)
    assert.equal((await server.client.readFlowRun(id, forever))?.state_type, 'SCHEDULED')
  },
}

const prefect2File = `###
### A complete description of a Prefect Deployment for flow 'hello'
###
name: built
description: null
version: 71b1bb6f2b5f9c9ce0f3cb1ae2ba1a4a
work_queue_name: batch
work_pool_name: null
tags: []
parameters: {}
schedules: []
schedule: null
is_schedule_active: null
infra_overrides:
  env.A: "2"
infrastructure:
  type: process
  env: {A: "1"}
  labels: {}
  name: null
  command: null
  stream_output: false
  working_dir: null
  block_type_slug: process
  _block_type_slug: process
###
### DO NOT EDIT BELOW THIS LINE
###
flow_name: hello
manifest_path: null
storage: null
path: /srv/flows
entrypoint: hello.py:hello
parameter_openapi_schema:
  title: Parameters
  type: object
  properties: {}
  required: null
  definitions: null
timestamp: '2026-11-24T04:00:00.000000+00:00'
triggers: []
`
