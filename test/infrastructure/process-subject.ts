// A process driver over a folder of its own, for tests; ends what is left of its runs.

import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import type { Infrastructure } from '../../src/infrastructure/infrastructure.ts'
import { createProcessInfrastructure, type ProcessOptions } from '../../src/infrastructure/process.ts'
import { createLogger } from '../../src/logger.ts'
import { makeDirectory } from '../support/directory.ts'
import type { Subject } from './contract.ts'

export interface ProcessSubject extends Subject {
  readonly runsDirectory: string
  /** The folder of a run's first submission. */
  folderOf(attempt: { readonly flowRunId: string; readonly attempt: string }): string
  startAnew(options?: Partial<ProcessOptions>): Infrastructure
}

/** Says nothing. */
export const quietLogger = createLogger({ level: 'CRITICAL', pretty: false, destination: { write: () => undefined } })

/** The mark by which a test file finds processes that it has left behind; runs do not inherit RIGEL_* by themselves. */
export const leakMark: Readonly<Record<string, string>> = process.env.RIGEL_TEST_FILE
  ? { RIGEL_TEST_FILE: process.env.RIGEL_TEST_FILE }
  : {}

export async function makeProcessSubject(options: Partial<ProcessOptions> = {}): Promise<ProcessSubject> {
  const directory = await makeDirectory()
  const runsDirectory = options.runsDirectory ?? join(directory.path, 'runs')
  await mkdir(runsDirectory, { recursive: true })
  const startAnew = (overrides: Partial<ProcessOptions> = {}): Infrastructure =>
    createProcessInfrastructure({
      runsDirectory,
      logger: quietLogger,
      outputCapBytes: 1024 * 1024,
      environment: process.env,
      inheritEnv: 'all',
      ...options,
      ...overrides,
    })
  const infrastructure = startAnew()
  return {
    infrastructure,
    runsDirectory,
    startAnew,
    settings: { type: 'process' },
    shared: { folder: directory.path, settings: {} },
    folderOf: ({ flowRunId, attempt }) => join(runsDirectory, flowRunId, 'process', `${attempt}-1`),
    prepare: async flowRunId => {
      await mkdir(join(runsDirectory, flowRunId), { mode: 0o700 })
    },
    [Symbol.asyncDispose]: async () => {
      await endRuns(infrastructure, runsDirectory)
      await directory[Symbol.asyncDispose]()
    },
  }
}

/** A test that failed half-way leaves runs: the next ones shall not suffer from it. */
async function endRuns(infrastructure: Infrastructure, runsDirectory: string): Promise<void> {
  for (const flowRunId of await readdir(runsDirectory)) {
    const submissions = await readdir(join(runsDirectory, flowRunId, 'process')).catch(() => [])
    for (const attempt of new Set(submissions.map(name => name.slice(0, name.lastIndexOf('-'))))) {
      const handle = { type: 'process', identifier: 'host:0', flowRunId, attempt, transitionId: attempt }
      await infrastructure.kill(handle, 0, AbortSignal.timeout(5000)).catch(() => undefined)
    }
  }
}
