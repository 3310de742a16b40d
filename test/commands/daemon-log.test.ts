// A daemon whose log has no place to go: it lives on, and its runs with it.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { openSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import test from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { openStage, type Stage } from '../agent/stage.ts'
import { startEmbedded } from '../server/embedded.ts'
import { cleanEnvironment } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { cli } from './support.ts'

/** Starts a program whose last words are `rigel agent start` on the stage's queue. */
function startAgent(stage: Stage, stdout: 'pipe' | number, wrap: (words: readonly string[]) => readonly string[]) {
  const [program = '', ...words] = wrap([process.execPath, cli, 'agent', 'start', '-q', stage.queue])
  return spawn(program, words, {
    cwd: stage.directory,
    env: {
      ...cleanEnvironment(),
      HOME: stage.directory,
      LEDGER: stage.ledgerFile,
      PREFECT_HOME: `${stage.directory}/prefect`,
      PREFECT_API_URL: stage.apiUrl,
      PREFECT_AGENT_QUERY_INTERVAL: '1',
      RIGEL_STATE_DIR: stage.stateDirectory,
      SHELL: '/bin/sh',
    },
    stdio: ['pipe', stdout, 'ignore'],
  })
}

test('an agent whose log file is on a full disk runs what is due, and stops as asked', async () => {
  await using server = await startEmbedded()
  await using stage = await openStage(server.apiUrl)
  const run = await stage.run(await stage.deployCommand({ script: 'echo hello' }))
  const agent = startAgent(stage, openSync('/dev/full', 'a'), words => words)
  const ended = once(agent, 'exit')
  await stage.waitFor(run.id, ['COMPLETED'])
  agent.kill('SIGTERM')
  assert.deepEqual(await ended, [0, null])
})

test('an agent whose terminal is closed waits for its runs', needs('terminal'), async () => {
  await using server = await startEmbedded()
  await using stage = await openStage(server.apiUrl)
  const run = await stage.run(await stage.deployCommand({ script: stage.awaits('go') }))
  const pidFile = `${stage.directory}/pid`
  const terminal = startAgent(stage, 'pipe', words => [
    'script',
    '-qec',
    `echo $$ > ${pidFile}; exec ${words.map(word => `'${word}'`).join(' ')}`,
    '/dev/null',
  ])
  terminal.stdout?.resume()
  await until(() => stage.starts(run.id) === 1, { timeoutMs: 30_000 })
  terminal.kill('SIGKILL')
  // Its child, the agent, hears of it, and writes that it is stopping to a terminal that is not there any more.
  await delay(1_500)
  stage.give('go')
  await stage.waitFor(run.id, ['COMPLETED'])
  const pid = Number(await readFile(pidFile, 'utf8'))
  await until(() => !isAlive(pid))
})

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
