// The deployment file beside the one that Prefect's own command writes of the same flow, and what `deployment build` refuses.

import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import * as v from 'valibot'
import { parse } from 'yaml'
import { makeDirectory } from '../support/directory.ts'
import { cleanEnvironment, findPrefect } from '../support/prefect-server.ts'
import { startPython } from '../support/python.ts'
import { needs } from '../support/requires.ts'
import { openServer, runCli, type TestServer } from './support.ts'

const flow = `
from datetime import datetime
from typing import List, Optional
from prefect import flow

@flow(name="my-flow", version="7")
def hello(name: str = "yes", n: int = 3, when: Optional[datetime] = None, tags: List[str] = []):
    """Says hello.

    Args:
        name: whom
    """
    print("a module may print what it likes")

print("also when it is imported")
`

async function makeScene(environment: Readonly<Record<string, string>> = {}) {
  const directory = await makeDirectory()
  const source = join(directory.path, 'source')
  await mkdir(source)
  await writeFile(join(source, 'flow.py'), flow)
  const env = {
    PREFECT_HOME: join(directory.path, 'prefect'),
    RIGEL_CACHE_DIR: join(directory.path, 'cache'),
    ...environment,
  }
  return {
    source,
    env,
    rigel: (...args: string[]) => runCli(['deployment', 'build', ...args], { env, cwd: source }),
    read: (name: string) => readFile(join(source, name), 'utf8'),
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  }
}

const blocks = ['-q', 'q1', '-sb', 's3/mine/sub', '-ib', 'process/mine', '--skip-upload', '-t', 'x', '--tag', 'y']
const facts = ['-d', 'Told', '-v', '8', '--param', 'n=4', '--override', 'env.B=2', '--override', 'working_dir=/x']
const daily = ['--timezone', 'Europe/Berlin', '--cron', '0 9 * * *']

/** Built one after the other, by Prefect's own command and by ours; the later ones of a name find the deployment on the server. */
const builds: readonly (readonly string[])[] = [
  ['-n', 'full', ...blocks, ...facts, ...daily],
  ['-n', 'full', '-sb', 's3/mine', '--path', 'sub', '--skip-upload'],
  ['-n', 'full', '--no-schedule', '-t', 'z', '--params', '{"name": "no"}', '-i', 'process'],
  ['-n', 'every', '--interval', '3600', '--anchor-date', '2024-01-31', '-i', 'docker-container', '-l', '3'],
  ['-n', 'every', '--path', '/app'],
  ['-n', 'rule', '--rrule', '{"rrule": "FREQ=DAILY"}', '--timezone', 'Europe/Berlin', '-i', 'kubernetes-job'],
  // The pool of agents is there as soon as one of their queues is.
  ['-n', 'plain', '-p', 'default-agent-pool'],
]

test(
  "the file is the one that Prefect's own command writes, and each takes the other's",
  needs('prefect2'),
  async () => {
    await using server = await openServer('prefect2')
    const bin = join(findPrefect('prefect2'), 'bin')
    await using scene = await makeScene({ PREFECT_API_URL: server.apiUrl, RIGEL_PYTHON: join(bin, 'python') })
    const rigel = async (...args: string[]) => {
      const { code, stderr } = await runCli(args, { env: scene.env, cwd: scene.source })
      assert.equal(code, 0, stderr)
    }
    const env = { ...cleanEnvironment(), ...scene.env }
    await using command = startPython(join(bin, 'python'), program, { cwd: scene.source, env })
    const prefect = async (...args: string[]) => {
      const { code, said } = v.parse(Said, await command.ask(['deployment', ...args]))
      assert.equal(code, 0, `prefect ${args.join(' ')}: ${said}`)
    }
    await writeFile(join(scene.source, 's3.json'), '{"bucket_path": "b/flows", "aws_secret_access_key": "hush-hush"}')
    await rigel('block', 'create', 's3', '--name', 'mine', '--file', 's3.json')
    await rigel('block', 'create', 'process', '--name', 'mine', '--field', 'env={"A": "1"}')
    for (const args of builds) {
      const what = args.join(' ')
      await prefect('build', 'flow.py:hello', ...args, '-o', 'theirs')
      await rigel('deployment', 'build', 'flow.py:hello', ...args, '-o', 'ours')
      const [theirs, ours] = [await scene.read('theirs.yaml'), await scene.read('ours.yaml')]
      assert.doesNotMatch(ours, /hush-hush/)
      assert.deepEqual(withoutTime(parse(ours)), withoutTime(parse(theirs)), what)
      assert.deepEqual(Object.keys(parse(ours)), Object.keys(parse(theirs)), what)
      assert.deepEqual(commentsOf(ours), commentsOf(theirs), what)

      const read = async () => readDeployment(server, String(args[1]))
      await prefect('apply', 'ours.yaml')
      const appliedByPrefect = await read()
      await rigel('deployment', 'apply', 'theirs.yaml')
      assert.deepEqual(await read(), appliedByPrefect, what)
    }
    const queue = await server.client.readWorkQueueByName('default', new AbortController().signal)
    assert.equal(queue?.concurrency_limit, 3)
  },
)

const program = fileURLToPath(new URL('./prefect-command.py', import.meta.url))
const Said = v.object({ code: v.number(), said: v.string() })

function withoutTime({ timestamp: _timestamp, ...rest }: Record<string, unknown>): Record<string, unknown> {
  return rest
}

/** As the server has it, but for the moment and for the id of a block that each command makes for itself. */
async function readDeployment({ client }: TestServer, name: string): Promise<Record<string, unknown>> {
  const signal = new AbortController().signal
  const found = await client.readDeploymentByName('my-flow', name, signal)
  assert.ok(found?.infrastructure_document_id)
  const { updated: _updated, infrastructure_document_id, schedules, ...rest } = found
  const block = await client.readBlockDocument(infrastructure_document_id, signal)
  const plain = (schedules ?? []).map(schedule =>
    v.parse(v.object({ schedule: v.unknown(), active: v.boolean() }), schedule),
  )
  return { ...rest, schedules: plain, infrastructure: block?.data }
}

function commentsOf(text: string): string[] {
  return text.split('\n').filter(line => line.startsWith('#'))
}

test('without a Python that has Prefect a warning says so, and names are taken as they are', async () => {
  await using scene = await makeScene({ RIGEL_PYTHON: '/nowhere/python' })
  const { code, stderr } = await scene.rigel('flow.py:say_hello', '-n', 'x')
  assert.equal(code, 0, stderr)
  assert.match(stderr, /warning: the parameters of the flow are not known, for there is no \/nowhere\/python/)
  const file = parse(await scene.read('say_hello-deployment.yaml'))
  assert.deepEqual([file.flow_name, file.entrypoint, file.path], ['say-hello', 'flow.py:say_hello', scene.source])
})

test('what is built again keeps what the server has, an infrastructure of its own with its secrets', async () => {
  await using server = await openServer('embedded')
  await using scene = await makeScene({ PREFECT_API_URL: server.apiUrl })
  const signal = new AbortController().signal
  const read = async () => {
    const found = await server.client.readDeploymentByName('job', 'x', signal)
    assert.ok(found?.infrastructure_document_id)
    const { infrastructure_document_id: id, work_queue_name: queue, description, parameters, tags } = found
    const schedules = found.schedules?.map(schedule => v.parse(v.object({ schedule: v.unknown() }), schedule).schedule)
    const block = await server.client.readBlockDocument(id, signal)
    return { id, queue, description, parameters, tags, schedules, env: block?.data?.env }
  }
  const build = async (...args: string[]) => {
    const { code, stdout, stderr } = await scene.rigel('sh job.sh', '--flow-name', 'job', '-n', 'x', ...args)
    assert.equal(code, 0, stderr)
    return stdout
  }
  const facts = ['-q', 'q1', '-d', 'Told', '-t', 'a', '--param', 'n=1', '--cron', '0 6 * * *', '-i', 'docker-container']
  await build(...facts)
  const file = await scene.read('job-deployment.yaml')
  await writeFile(join(scene.source, 'own.yaml'), file.replace('  env: {}', '  env: {API_TOKEN: hush-hush}'))
  const apply = (...args: string[]) => runCli(['deployment', 'apply', ...args], { env: scene.env, cwd: scene.source })
  assert.equal((await apply('own.yaml')).code, 0)
  const before = await read()
  assert.deepEqual([before.env, before.tags], [{ API_TOKEN: 'hush-hush' }, ['a']])

  assert.match(await build('--apply'), /what was not said this time is as on the server/)
  assert.deepEqual(await read(), before)
  assert.doesNotMatch(await scene.read('job-deployment.yaml'), /hush-hush/)
  await build('--apply', '-t', 'b', '--no-schedule')
  assert.deepEqual(await read(), { ...before, tags: ['b'], schedules: [] })

  const id = before.id
  await server.client.deleteBlockDocument(id, signal)
  const { code, stderr } = await apply('job-deployment.yaml')
  assert.equal(code, 1)
  assert.match(stderr, new RegExp(`There is no infrastructure block "${id}" on the server`))
})

test('apply uploads the current directory and limits the queue when it is told to', async () => {
  await using server = await openServer('embedded')
  await using scene = await makeScene({ PREFECT_API_URL: server.apiUrl })
  const basepath = join(scene.source, '..', 'shared')
  const create = ['block', 'create', 'local-file-system', '--name', 'mine', '--basepath', basepath]
  assert.equal((await runCli(create, { env: scene.env, cwd: scene.source })).code, 0)
  const built = ['sh job.sh', '-n', 'x', '-q', 'q1', '-sb', 'local-file-system/mine/apps', '--skip-upload', '-o', 'job']
  assert.equal((await scene.rigel(...built)).code, 0)
  const flags = ['job.yaml', '--upload', '-l', '2']
  const { code, stderr } = await runCli(['deployment', 'apply', ...flags], { env: scene.env, cwd: scene.source })
  assert.equal(code, 0, stderr)
  assert.equal(await readFile(join(basepath, 'apps', 'flow.py'), 'utf8'), flow)
  const queue = await server.client.readWorkQueueByName('q1', new AbortController().signal)
  assert.equal(queue?.concurrency_limit, 2)
})

test('a deployment whose storage can only be read is registered, with a warning that nothing was uploaded', async () => {
  await using server = await openServer('embedded')
  await using scene = await makeScene({ PREFECT_API_URL: server.apiUrl })
  const data = { basepath: 'http://127.0.0.1:9/flows', settings: { auth: ['rigel', 'secret'] } }
  await writeFile(join(scene.source, 'web.json'), JSON.stringify(data))
  const create = ['block', 'create', 'remote-file-system', '--name', 'web', '--file', 'web.json']
  assert.equal((await runCli(create, { env: scene.env, cwd: scene.source })).code, 0)
  const args = ['sh job.sh', '-n', 'x', '-q', 'q1', '-sb', 'remote-file-system/web/etl', '--apply', '-o', 'job']
  const warning =
    /^warning: The storage block of type "remote-file-system" \(http:\/\/127\.0\.0\.1:9\/flows\) can only be read, so nothing was uploaded\.$/m
  const built = await scene.rigel(...args)
  assert.equal(built.code, 0, built.stderr)
  assert.match(built.stderr, warning)
  const deployment = await server.client.readDeploymentByName('sh', 'x', new AbortController().signal)
  assert.deepEqual([deployment?.path, deployment?.entrypoint], ['etl', 'sh job.sh'])
  assert.deepEqual((await readdir(scene.source)).toSorted(), ['flow.py', 'job.yaml', 'web.json'])
  const applied = await runCli(['deployment', 'apply', 'job.yaml', '--upload'], { env: scene.env, cwd: scene.source })
  assert.equal(applied.code, 0, applied.stderr)
  assert.match(applied.stderr, warning)
})

test('an interval counts from a moment that is written down', async () => {
  await using scene = await makeScene()
  for (const [anchor, written] of [
    ['2024-01-31', '2024-01-31T00:00:00+00:00'],
    ['2024-01-31T06:30', '2024-01-31T06:30:00+00:00'],
    ['2024-01-31T06:30:00+02:00', '2024-01-31T04:30:00+00:00'],
  ] as const) {
    const every = ['--interval', '60', '--anchor-date', anchor]
    const { code, stderr } = await scene.rigel('sh job.sh', '-n', 'x', ...every, '--output=job.yaml')
    assert.deepEqual([code, stderr], [0, ''])
    const [schedule] = parse(await scene.read('job.yaml')).schedules
    assert.deepEqual(schedule.schedule, { interval: 60, anchor_date: written, timezone: 'UTC' })
  }
})

test('-o names the file, or the form of what is said', async () => {
  await using scene = await makeScene()
  const { stdout } = await scene.rigel('sh job.sh', '-n', 'x', '-v', '1', '-o', 'json', '-o', 'job')
  assert.equal(parse(await scene.read('job.yaml')).version, '1')
  assert.equal(JSON.parse(stdout).file, join(scene.source, 'job.yaml'))
})

test('a program is deployed as well', async () => {
  await using scene = await makeScene()
  const { code, stderr } = await scene.rigel('./jobs/report.sh --fast', '-n', 'x', '--out', 'job.yaml')
  assert.deepEqual([code, stderr], [0, ''])
  const file = parse(await scene.read('job.yaml'))
  assert.deepEqual([file.flow_name, file.entrypoint], ['report', './jobs/report.sh --fast'])
})

test('a flow that cannot be imported is an error with the reason of Python', needs('prefect2'), async () => {
  await using scene = await makeScene({ RIGEL_PYTHON: join(findPrefect('prefect2'), 'bin/python') })
  await writeFile(join(scene.source, 'flow.py'), 'import nothing_of_that_name\n')
  const { code, stderr } = await scene.rigel('flow.py:hello', '-n', 'x')
  assert.equal(code, 1)
  assert.match(stderr, /could not import the flow "flow\.py:hello"/)
  assert.match(stderr, /nothing_of_that_name/)
})

for (const [args, words] of [
  [['flow.py:hello'], /Give the deployment a --name/],
  [['flow.py', '-n', 'x'], /does not say which function is the flow/],
  [['../flow.py:hello', '-n', 'x'], /is not below the current directory/],
  [['flow.py:hello', '-n', 'x', '-sb', 's3/a/b', '--path', 'c'], /not both/],
  [['flow.py:hello', '-n', 'x', '-sb', 's3'], /TYPE\/NAME was expected/],
  [['flow.py:hello', '-n', 'x', '--cron', '* * * * *', '--interval', '5'], /one of --cron/],
  [['flow.py:hello', '-n', 'x', '--override', 'env'], /KEY=VALUE was expected/],
  [['flow.py:hello', '-n', 'x', '-i', 'proces'], /Rigel runs process, docker-container, kubernetes-job.*"process"/s],
  [['flow.py:hello', '-n', 'x', '-i', 'process', '-ib', 'process/a'], /one of --infra and --infra-block/],
  [['flow.py:hello', '-n', 'x', '--cron', '* * * * *', '--no-schedule'], /one of --cron.*--no-schedule/],
  [['flow.py:hello', '-n', 'x', '--anchor-date', '2024-01-01'], /goes with --interval/],
  [['flow.py:hello', '-n', 'x', '--interval', '5', '--anchor-date', 'soon'], /a date such as/],
  [['flow.py:hello', '-n', 'x', '--rrule', 'FREQ=DAILY;COUNT=3'], /UNTIL/],
  [['flow.py:hello', '-n', 'x', '--rrule', '{"rule": 1}'], /neither a rule nor/],
  [['flow.py:hello', '-n', 'x', '--timezone', 'UTC'], /goes with --cron/],
] as const) {
  test(`deployment build ${args.join(' ')} is refused`, async () => {
    await using scene = await makeScene({ RIGEL_PYTHON: '/nowhere/python' })
    const { code, stderr } = await scene.rigel(...args)
    assert.equal(code, 2, stderr)
    assert.match(stderr, words)
  })
}
