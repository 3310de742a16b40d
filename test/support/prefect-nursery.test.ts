// What test files rely on when their Prefect servers are forked from one process.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import process from 'node:process'
import test from 'node:test'
import { startPrefectServer } from './prefect-server.ts'
import { needs } from './requires.ts'
import { until } from './until.ts'

/** A server on SQLite answers 503 when it writes at the same time by itself. */
async function post(apiUrl: string, path: string, body: unknown): Promise<unknown> {
  const headers = { 'content-type': 'application/json' }
  const answer = await until(async () => {
    const sent = await fetch(`${apiUrl}${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
    return sent.ok && sent
  })
  return await answer.json()
}

for (const which of ['prefect2', 'prefect3'] as const) {
  test(`two ${which} servers share nothing, and go on without each other`, needs(which), async () => {
    await using one = await startPrefectServer(which)
    {
      await using other = await startPrefectServer(which)
      await post(one.apiUrl, '/flows/', { name: 'mine' })
      const counts = await Promise.all([one, other].map(({ apiUrl }) => post(apiUrl, '/flows/count', {})))
      assert.deepEqual(counts, [1, 0])
    }
    assert.equal(await post(one.apiUrl, '/flows/count', {}), 1)
  })
}

test('a server ends with the process that has started it, however that ends', needs('prefect2'), async () => {
  const script = `import { startPrefectServer } from ${JSON.stringify(new URL('./prefect-server.ts', import.meta.url).href)}
    console.log((await startPrefectServer('prefect2')).apiUrl)`
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [line] = await once(child.stdout, 'data')
  const apiUrl = String(line).trim()
  assert.ok((await fetch(`${apiUrl}/health`)).ok)
  child.kill('SIGKILL')
  await until(async () => !(await fetch(`${apiUrl}/health`).catch(() => undefined)))
})
