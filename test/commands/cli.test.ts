import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import * as v from 'valibot'
import { makeDirectory } from '../support/directory.ts'
import { runCli, startCli } from './support.ts'

const Listed = v.record(v.string(), v.object({ value: v.unknown(), source: v.string() }))

test('the version is one line, and the longer form names what it runs on', async () => {
  const short = await runCli(['--version'])
  assert.equal(short.code, 0)
  assert.match(short.stdout, /^\d+\.\d+\.\d+\n$/)
  const long = await runCli(['version', '-o', 'json'])
  assert.partialDeepStrictEqual(JSON.parse(long.stdout), { version: short.stdout.trim(), node: process.version })
})

test('a wrong command, option or argument ends with exit code 2 and a hint', async () => {
  for (const [args, message] of [
    [['deploymnt'], /unknown command.*\n.*deployment/],
    [['deployment', 'run'], /missing required argument/],
    [['work-queue', 'ls', '--nonsense'], /unknown option '--nonsense'/],
    [['flow-run', 'ls', '--limit', 'many'], /--limit: expected a whole number/],
    [['-o', 'xml', 'version'], /table, json/],
    [['deployment', 'run', 'a/b', '-p', 'x'], /KEY=VALUE/],
    [['deployment', 'run', 'a/b', '--params', '[1]'], /JSON object/],
    [['agent', 'start', '-q', 'x', '--limit', '0'], /--limit .*is "0".*whole number of at least 1/],
  ] as const) {
    const { code, stderr } = await runCli(args, { env: { PREFECT_API_URL: 'http://127.0.0.1:9/api' } })
    assert.equal(code, 2, `${args.join(' ')}: ${stderr}`)
    assert.match(stderr, message)
    assert.doesNotMatch(stderr, /^ {4}at /m)
  }
})

test('without an API URL a command ends with exit code 2 and a sentence that names rigel dev', async () => {
  for (const args of [
    ['work-queue', 'ls'],
    ['agent', 'start', '-q', 'x'],
  ]) {
    const { code, stderr } = await runCli(args)
    assert.equal(code, 2, stderr)
    assert.match(stderr, /No Prefect API URL is set/)
    assert.match(stderr, /rigel dev/)
  }
})

test('a refused connection ends with exit code 1 and a sentence that says where the URL comes from', async () => {
  const { code, stderr } = await runCli(['work-queue', 'ls', '--api-max-retries', '1'], {
    env: { PREFECT_API_URL: 'http://127.0.0.1:9/api' },
  })
  assert.equal(code, 1)
  assert.match(stderr, /^error: Could not reach the Prefect API at http:\/\/127\.0\.0\.1:9/m)
  assert.match(stderr, /environment PREFECT_API_URL/)
  assert.doesNotMatch(stderr, /^ {4}at /m)
})

test('the stack of an error is shown with --debug only', async () => {
  const env = { PREFECT_API_URL: 'http://127.0.0.1:9/api', PREFECT_CLIENT_MAX_RETRIES: '0' }
  assert.match((await runCli(['--debug', 'work-queue', 'ls'], { env })).stderr, /^ {4}at /m)
  assert.match((await runCli(['work-queue', 'ls', '--debug'], { env })).stderr, /^ {4}at /m)
  assert.doesNotMatch((await runCli(['work-queue', 'ls'], { env })).stderr, /^ {4}at /m)
})

test('what the server answers decides the hint', async () => {
  for (const [status, body, message, hint] of [
    [401, '{"exception_message":"Unauthorized"}', /Unauthorized/, /PREFECT_API_KEY.*PREFECT_API_AUTH_STRING/],
    [404, '<html>not here</html>', /404/, /with its \/api.*flag --api/],
    [500, '{"exception_message":"Internal Server Error"}', /Internal Server Error/, undefined],
  ] as const) {
    await using server = await listen((_, response) => response.writeHead(status).end(body))
    const { code, stderr } = await runCli(['deployment', 'ls', '--api', server.url, '--api-max-retries', '0'])
    assert.equal(code, 1)
    assert.match(stderr, message)
    if (hint) assert.match(stderr, hint)
    assert.doesNotMatch(stderr, /^ {4}at /m)
  }
})

test('a server that never answers is given up on after 30 seconds', async () => {
  await using server = await listen(() => undefined)
  const start = performance.now()
  const { code, stderr } = await runCli(['work-queue', 'ls', '--api', server.url])
  assert.equal(code, 1)
  assert.match(stderr, /has not answered for 30 s/)
  assert.ok(performance.now() - start > 29_000)
})

test('a command that waits for a server ends at the first SIGINT with exit code 130, without a word', async () => {
  const asked = Promise.withResolvers<void>()
  await using server = await listen(() => asked.resolve())
  const started = startCli(['work-queue', 'ls', '--api', server.url])
  await asked.promise
  started.kill('SIGINT')
  const { code, stderr } = await started.ended
  assert.equal(code, 130)
  assert.equal(stderr, '')
})

/** A server that is no Prefect. */
async function listen(answer: RequestListener): Promise<AsyncDisposable & { readonly url: string }> {
  const server = createServer(answer).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert.ok(typeof address === 'object' && address)
  return {
    url: `http://127.0.0.1:${address.port}/api`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await promisify(server.close.bind(server))()
    },
  }
}

test('config view shows every value with its source and masks secrets', async () => {
  await using home = await makeDirectory()
  await mkdir(join(home.path, '.prefect'))
  await writeFile(
    join(home.path, '.prefect/profiles.toml'),
    'active = "prod"\n[profiles.prod]\nPREFECT_API_URL = "http://me:s3cret@prod/api"',
  )
  await writeFile(join(home.path, 'rigel.toml'), '[agent]\nlimit = 7')
  const env = { HOME: home.path, PREFECT_API_KEY: 's3cret' }
  const args = ['config', 'view', '--config', join(home.path, 'rigel.toml'), '--agent-linger-seconds', '5']
  const json = await runCli([...args, '-o', 'json'], { env })
  assert.equal(json.code, 0, json.stderr)
  const listed = v.parse(Listed, JSON.parse(json.stdout))
  assert.deepEqual(listed['agent.limit'], { value: 7, source: `file ${join(home.path, 'rigel.toml')}` })
  assert.deepEqual(listed['agent.linger_seconds'], { value: 5, source: 'flag --agent-linger-seconds' })
  assert.deepEqual(listed['api.key'], { value: '***', source: 'environment PREFECT_API_KEY' })
  assert.equal(listed['api.url']?.value, 'http://***@prod/api')
  assert.match(listed['api.url']?.source ?? '', /^profile prod in /)
  const table = await runCli(args, { env })
  assert.match(table.stdout, /^agent\.limit +7 +file /m)
  assert.doesNotMatch(table.stdout + json.stdout, /s3cret/)
})

test('config validate accepts a good file and refuses a bad one with exit code 2', async () => {
  await using directory = await makeDirectory()
  await writeFile(join(directory.path, 'good.toml'), '[agent]\nlimit = 7')
  await writeFile(join(directory.path, 'bad.toml'), '[agent]\nlimits = 7')
  const good = await runCli(['config', 'validate', 'good.toml'], { cwd: directory.path })
  assert.equal(good.code, 0, good.stderr)
  assert.match(good.stdout, /good\.toml is valid/)
  const bad = await runCli(['config', 'validate', 'bad.toml'], { cwd: directory.path })
  assert.equal(bad.code, 2)
  assert.match(bad.stderr, /bad\.toml.*"agent\.limits".*\nhint: Did you mean "agent\.limit"/)
})

test('a profile is chosen before or after the command, and warnings go to stderr', async () => {
  for (const args of [
    ['--profile', 'local', 'config', 'view'],
    ['config', 'view', '--profile', 'local'],
  ]) {
    const { stdout } = await runCli(args)
    assert.match(stdout, /^api\.url +http:\/\/127\.0\.0\.1:4200\/api +profile local/m)
  }
  const { stderr } = await runCli(['config', 'view'], { env: { PREFECT_PROFILE: 'nowhere' } })
  assert.match(stderr, /^warning: there is no profile "nowhere"/m)
})

test('a reader that goes away early is no error', async () => {
  const started = startCli(['config', 'view'])
  started.closeStdout()
  const { code, stderr } = await started.ended
  assert.equal(stderr, '')
  assert.equal(code, 141)
})

test('server start serves the API until SIGTERM, and then ends with exit code 0', async () => {
  await using directory = await makeDirectory()
  const args = ['server', 'start', '--port', '0', '--database-path', join(directory.path, 'server.db')]
  const started = startCli(args)
  const output = await started.saw(/"api_url":"[^"]+"/)
  const apiUrl = /"api_url":"([^"]+)"/.exec(output)?.[1] ?? ''
  assert.equal(await (await fetch(`${apiUrl}/health`)).text(), 'true')
  started.kill('SIGTERM')
  const { code, stderr } = await started.ended
  assert.equal(code, 0, stderr)
})
