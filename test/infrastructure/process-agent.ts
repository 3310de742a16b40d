// A program: the part of an agent that starts one process run and waits for it, to be killed by tests at any moment.
//
// In: argv[2], JSON: runs directory, spec, options. Out on standard output: `handle <json>`, `line <text>` …, `exit <json>`.

import process from 'node:process'
import type { RunSpec } from '../../src/infrastructure/infrastructure.ts'
import { createProcessInfrastructure, type ProcessOptions } from '../../src/infrastructure/process.ts'
import { quietLogger } from './process-subject.ts'

export interface AgentOrder extends Pick<ProcessOptions, 'runsDirectory' | 'outputCapBytes'> {
  readonly spec: RunSpec
  readonly shell?: string
  readonly caretakerSeconds?: number
  /** False: ends after the start, to show that a living run does not keep the program alive. */
  readonly waits: boolean
}

if (import.meta.main) {
  // Written by the test next door.
  const order: AgentOrder = JSON.parse(process.argv[2] ?? '')
  await obey(order)
}

async function obey({ spec, waits, ...options }: AgentOrder): Promise<void> {
  const infrastructure = createProcessInfrastructure({
    logger: quietLogger,
    environment: process.env,
    inheritEnv: 'all',
    ...options,
  })
  const { signal } = new AbortController()
  const handle = await infrastructure.submit(spec, signal)
  process.stdout.write(`handle ${JSON.stringify(handle)}\n`)
  if (!waits) return
  process.stdout.write(`exit ${JSON.stringify(await infrastructure.wait(handle, showLines, signal))}\n`)
}

function showLines(lines: readonly string[]): void {
  for (const line of lines) process.stdout.write(`line ${line}\n`)
}
