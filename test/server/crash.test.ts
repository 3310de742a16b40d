import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { makeDirectory } from '../support/directory.ts'
import { call } from './embedded.ts'

const program = fileURLToPath(new URL('serve.ts', import.meta.url))

async function serve(databasePath: string): Promise<{ readonly child: ChildProcess; readonly apiUrl: string }> {
  const child = spawn(process.execPath, [program, databasePath], { stdio: ['ignore', 'pipe', 'inherit'] })
  assert.ok(child.stdout)
  const [apiUrl] = await once(createInterface(child.stdout), 'line')
  return { child, apiUrl: String(apiUrl) }
}

async function kill(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}

test('a server that is killed while it writes loses nothing that it has acknowledged', async () => {
  await using directory = await makeDirectory()
  const databasePath = join(directory.path, 'server.db')
  const names: string[] = []
  const claimed: string[] = []
  for (let life = 0; life < 3; life++) {
    const { child, apiUrl } = await serve(databasePath)
    const flow = (await call(apiUrl, 'POST', '/flows/', { name: 'main' })).body
    const enough = Promise.withResolvers<void>()
    const most = names.length + 30 + life * 17
    // Several writers go on until the server is gone; each notes what was acknowledged to it.
    const writers = Array.from({ length: 4 }, async (_, writer) => {
      for (let n = 0; ; n++) {
        const name = `run ${life} ${writer} ${n}`
        const run = { name, flow_id: flow.id, state: { type: 'SCHEDULED' } }
        const created = await call(apiUrl, 'POST', '/flow_runs/', run).catch(() => undefined)
        if (created === undefined) return
        names.push(name)
        if (names.length >= most) enough.resolve()
        const state = { state: { type: 'PENDING' } }
        const set = await call(apiUrl, 'POST', `/flow_runs/${created.body.id}/set_state`, state).catch(() => undefined)
        if (set === undefined) return
        claimed.push(name)
      }
    })
    await Promise.race([enough.promise, ...writers])
    await kill(child)
    await Promise.all(writers)
  }

  const { child, apiUrl } = await serve(databasePath)
  try {
    const find = async (filter: object) =>
      (await call(apiUrl, 'POST', '/flow_runs/count', { flow_runs: filter })).body as unknown
    assert.equal(await find({ name: { any_: names } }), names.length)
    assert.equal(await find({ name: { any_: claimed }, state: { type: { any_: ['PENDING'] } } }), claimed.length)
    // Whatever was not acknowledged is there as a whole or not at all.
    const { body: runs } = await call(apiUrl, 'POST', '/flow_runs/filter', { sort: 'START_TIME_DESC' })
    assert.ok(runs.every(run => run.state?.type === run.state_type && run.expected_start_time !== null))
  } finally {
    await kill(child)
  }
})
