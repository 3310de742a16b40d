// Our own image, built from the Dockerfile as CI can build it (support/engines/own-image.sh), does the agent's work as users
// run it: not as root, with an init that collects what flows leave behind.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import test, { after, suite } from 'node:test'
import { promisify } from 'node:util'
import { createLogger } from '../src/logger.ts'
import { PrefectClient } from '../src/prefect/client.ts'
import { dockerHost } from './infrastructure/docker-subject.ts'
import { startPrefectServer } from './support/prefect-server.ts'
import { needs } from './support/requires.ts'
import { until } from './support/until.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..')
const image = process.env.RIGEL_TEST_IMAGE ?? ''
const name = `rigel-image-test-${process.pid}`
const never = new AbortController().signal

async function docker(...args: readonly string[]): Promise<string> {
  const env = { PATH: process.env.PATH, HOME: process.env.HOME, DOCKER_HOST: dockerHost }
  const { stdout, stderr } = await run('docker', args, { cwd: root, env, maxBuffer: 16_777_216 })
  return `${stdout}${stderr}`.trim()
}

suite('the image of the Dockerfile', { ...needs('docker', 'image', 'prefect2'), timeout: 600_000 }, () => {
  after(async () => {
    await docker('rm', '-f', '-v', name).catch(() => undefined)
  })

  test('its agent runs what is due on a real server, not as root, and leaves no zombie', async () => {
    await using server = await startPrefectServer('prefect2')
    const logger = createLogger({ level: 'ERROR', pretty: true, destination: process.stderr })
    await using client = new PrefectClient({ url: server.apiUrl, logger })
    const flow = await client.createFlow('image', never)
    // A child that outlives its parent is nobody's but the init's.
    const entrypoint = `sh -c "echo uid=$(id -u); (sleep 1 &) ; exit 0"`
    const deployment = await client.createDeployment(
      { name: 'image', flow_id: flow.id, work_queue_name: 'image', entrypoint },
      never,
    )
    const api = `PREFECT_API_URL=${server.apiUrl}`
    await docker(
      'run',
      '-d',
      '--name',
      name,
      '--network',
      'host',
      '-e',
      api,
      '-e',
      'RIGEL_STATUS_PORT=0',
      image,
      'agent',
      'start',
      '-q',
      'image',
      '--agent-query-interval-seconds',
      '1',
    )
    const flowRun = await client.createFlowRunFromDeployment(deployment.id, {}, never)
    const done = await until(
      async () => {
        const now = await client.readFlowRun(flowRun.id, never)
        return ['COMPLETED', 'FAILED', 'CRASHED'].includes(now?.state_type ?? '') ? now : undefined
      },
      { timeoutMs: 90_000, everyMs: 200 },
    )
    assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${await docker('logs', name)}`)
    await until(async () => (await docker('logs', name)).includes('uid=10001'))
    assert.match(await docker('exec', name, 'cat', '/proc/1/comm'), /^tini$/)
    assert.match(await docker('exec', name, 'id', '-u'), /^10001$/)
    const states = 'for s in /proc/[0-9]*/stat; do sed "s/^.*) //" "$s" 2>/dev/null | cut -c1; done'
    await until(async () => !(await docker('exec', name, 'sh', '-c', states)).includes('Z'))
  })

  test('SIGTERM ends the agent in good order', async () => {
    await docker('stop', '-t', '60', name)
    const code = await docker('inspect', '-f', '{{.State.ExitCode}}', name)
    assert.equal(code, '0', await docker('logs', name))
  })

  test('it says how it is: its health check asks the agent itself', async () => {
    const text = await docker('inspect', '-f', '{{json .Config}}', image)
    const { User, Healthcheck, Volumes, Entrypoint } = JSON.parse(text)
    assert.equal(User, '10001:10001')
    assert.deepEqual(Entrypoint, ['tini', '--', 'rigel'])
    assert.deepEqual(Object.keys(Volumes), ['/var/lib/rigel'])
    assert.ok(Healthcheck.Test.join(' ').includes('/live'))
  })
})
