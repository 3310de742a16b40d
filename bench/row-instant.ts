// A burst of 300 runs when the server answers at once: launches a second that the agent itself reaches, journal,
// supervisor and report included, on a disk.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'
import { makeDirectory } from '../test/support/directory.ts'
import { until } from '../test/support/until.ts'
import { startAgent } from './agents.ts'
import { median, type Row, round } from './figures.ts'
import type { Packed } from './packed.ts'
import { readProcessorMs } from './process-tree.ts'

const runs = 300
const limit = 50
const times = 3

export async function measureInstant(packed: Packed): Promise<readonly Row[]> {
  const rates: number[] = []
  const processor: number[] = []
  for (let time = 0; time < times; time++) {
    const { launchesPerSecond, processorMsPerRun } = await runOnce(packed)
    rates.push(launchesPerSecond)
    processor.push(processorMsPerRun)
  }
  return [
    {
      what: `burst of ${runs} runs, --limit ${limit}, when the server answers at once`,
      prefect: '-',
      rigel: `${round(median(rates), 0)} launches/s`,
      target: '≥ 100 /s on 2 cores',
    },
    {
      what: "agent's own processor time per run, then",
      prefect: '-',
      rigel: `${round(median(processor))} ms`,
      target: '-',
    },
  ]
}

async function runOnce(packed: Packed): Promise<{ launchesPerSecond: number; processorMsPerRun: number }> {
  await using directory = await makeDirectory()
  const ledger = join(directory.path, 'ledger')
  const script = join(directory.path, 'job')
  // dash begins in a third of bash's time; when a run began is told by its line's place, the last one's by the file's time.
  writeFileSync(ledger, '')
  writeFileSync(
    script,
    `#!/bin/sh\necho START $PREFECT__FLOW_RUN_ID >>'${ledger}'\necho END $PREFECT__FLOW_RUN_ID >>'${ledger}'\n`,
  )
  chmodSync(script, 0o755)
  await using server = await startInstantServer(script)
  await using agent = await startAgent({ kind: 'rigel', packed, apiUrl: server.apiUrl, queue: 'q', limit })
  const lines = (what: string): readonly string[] =>
    readFileSync(ledger, 'utf8')
      .split('\n')
      .filter(line => line.startsWith(what))
  const begun = { timeoutMs: 60_000, everyMs: 1, what: 'the first run to start' }
  await until(() => lines('START').length > 0, begun)
  const first = performance.now()
  const processorBefore = readProcessorMs(agent.pid, false)
  const already = lines('START').length
  await until(() => lines('START').length === runs, { ...begun, everyMs: 10, what: 'all runs to start' })
  const seconds = (performance.now() - first) / 1000
  await until(() => lines('END').length === runs, { ...begun, everyMs: 10, what: 'all runs to end' })
  const processorMs = readProcessorMs(agent.pid, false) - processorBefore
  if (new Set(lines('START')).size !== runs) throw new Error('a run was started twice')
  return { launchesPerSecond: (runs - already) / seconds, processorMsPerRun: processorMs / (runs - already) }
}

async function startInstantServer(command: string): Promise<AsyncDisposable & { apiUrl: string }> {
  const file = join(import.meta.dirname, 'instant-server.ts')
  const child = spawn(process.execPath, [file, String(runs), command], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line]: Buffer[] = await once(child.stdout, 'data')
  return {
    apiUrl: String(line).trim(),
    async [Symbol.asyncDispose]() {
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    },
  }
}
