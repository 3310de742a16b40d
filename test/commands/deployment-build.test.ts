// The deployment file beside the one that Prefect's own command writes of the same flow, and what `deployment build` refuses.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { promisify } from 'node:util'
import { parse } from 'yaml'
import { makeDirectory } from '../support/directory.ts'
import { cleanEnvironment, findPrefect } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { openServer, runCli } from './support.ts'

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

test("the file is the one that Prefect's own command writes", needs('prefect2'), async () => {
  await using server = await openServer('prefect2')
  const bin = join(findPrefect('prefect2'), 'bin')
  await using scene = await makeScene({ PREFECT_API_URL: server.apiUrl, RIGEL_PYTHON: join(bin, 'python') })
  const create = (...args: string[]) => runCli(['block', 'create', ...args], { env: scene.env, cwd: scene.source })
  await writeFile(join(scene.source, 's3.json'), '{"bucket_path": "b/flows", "aws_secret_access_key": "hush-hush"}')
  assert.equal((await create('s3', '--name', 'mine', '--file', 's3.json')).code, 0)
  assert.equal((await create('process', '--name', 'mine', '--field', 'env={"A": "1"}')).code, 0)
  for (const args of [
    ['-n', 'plain', '-q', 'q1'],
    [
      '-n',
      'full',
      '-q',
      'q1',
      '-sb',
      's3/mine/sub',
      '-ib',
      'process/mine',
      '--skip-upload',
      '-t',
      'x',
      '--param',
      'n=4',
      '--override',
      'env.B=2',
      '--timezone',
      'Europe/Berlin',
      '--cron',
      '0 9 * * *',
    ],
  ]) {
    const theirs = await promisify(execFile)(join(bin, 'prefect'), ['deployment', 'build', 'flow.py:hello', ...args], {
      cwd: scene.source,
      env: { ...cleanEnvironment(), ...scene.env },
    }).then(() => scene.read('hello-deployment.yaml'))
    const { code, stderr } = await scene.rigel('flow.py:hello', ...args)
    assert.equal(code, 0, stderr)
    const ours = await scene.read('hello-deployment.yaml')
    assert.doesNotMatch(ours, /hush-hush/)
    assert.deepEqual(readYaml(ours), readYaml(theirs), args.join(' '))
    assert.deepEqual(Object.keys(parse(ours)), Object.keys(parse(theirs)))
    assert.deepEqual(commentsOf(ours), commentsOf(theirs))
  }
})

/** Without what differs from one call to the next, and from one infrastructure block to its defaults. */
function readYaml(text: string): Record<string, unknown> {
  const { timestamp: _timestamp, infrastructure, storage, ...rest } = parse(text)
  return { ...rest, infrastructure: named(infrastructure), storage: named(storage) }
}

function named(block: Record<string, unknown> | null) {
  return block && [block._block_document_id, block._block_type_slug]
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
] as const) {
  test(`deployment build ${args.join(' ')} is refused`, async () => {
    await using scene = await makeScene({ RIGEL_PYTHON: '/nowhere/python' })
    const { code, stderr } = await scene.rigel(...args)
    assert.equal(code, 2, stderr)
    assert.match(stderr, words)
  })
}
