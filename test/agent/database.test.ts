// The server comes back with another database, and later with its own: nothing that the agent holds may be lost over it.

import assert from 'node:assert/strict'
import { copyFileSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { makeDirectory } from '../support/directory.ts'
import { findPrefect, startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { openStage } from './stage.ts'

test('a server without its database ends no run and loses no report', needs('prefect2'), async () => {
  await using directory = await makeDirectory()
  const fresh = join(findPrefect('prefect2'), 'fresh', 'prefect.db')
  if (existsSync(fresh)) copyFileSync(fresh, join(directory.path, 'prefect.db'))
  await using server = await startPrefectServer('prefect2', { home: directory.path })
  await using stage = await openStage(server.apiUrl)
  const long = await stage.run(await stage.deployCommand({ script: stage.awaits('late') }))
  const short = await stage.run(await stage.deployCommand({ script: stage.awaits('soon') }))
  await using agent = stage.startAgent()
  await until(() => stage.starts(long.id) === 1 && stage.starts(short.id) === 1, { what: 'both to be started' })
  await server[Symbol.asyncDispose]()

  await using empty = await startPrefectServer('prefect2', { port: server.port })
  stage.give('soon')
  const hasSaid = (what: string) =>
    agent.output.split('\n').some(line => line.includes(what) && /another database/.test(line))
  await until(
    () => (hasSaid('ending nothing') && hasSaid('cannot go on yet')) || agent.output.includes('ending the flow run'),
    { what: 'the agent to say that it is another database' },
  )
  await empty[Symbol.asyncDispose]()
  assert.doesNotMatch(agent.output, /ending the flow run/)

  await using _back = await startPrefectServer('prefect2', { home: directory.path, port: server.port })
  const reported = await stage.waitFor(short.id, ['COMPLETED', 'FAILED', 'CRASHED'])
  assert.equal(reported.state_type, 'COMPLETED', agent.output)
  stage.give('late')
  const done = await stage.waitFor(long.id, ['COMPLETED', 'FAILED', 'CRASHED'])
  assert.equal(done.state_type, 'COMPLETED', agent.output)
})
