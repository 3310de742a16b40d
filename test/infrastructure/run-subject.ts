// What subjects of drivers have in common that start runs outside of this machine's processes: a state folder, an agent's
// prefix, what is logged, and runs to submit.

import { randomBytes, randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { RunSpec, Value } from '../../src/infrastructure/infrastructure.ts'
import { createLogger, type Logger } from '../../src/logger.ts'
import { makeSpec, type Subject } from './contract.ts'

export interface RunSubject extends Pick<Subject, 'prepare' | 'settings'>, AsyncDisposable {
  /** A folder that a driver's subject may share with its runs. */
  readonly sharedFolder: string
  readonly runsDirectory: string
  /** First 8 hex digits of this subject's transition ids. */
  readonly agentPrefix: string
  /** What the drivers have logged, as JSON lines. */
  readonly log: string[]
  /** A try of this subject's own agent to run `script` by `sh -c`. Its folder is made. */
  spec(script: string, overrides?: Partial<RunSpec> & { words?: readonly Value[] }): Promise<RunSpec>
}

export async function makeRunSubject(
  settings: Subject['settings'],
  agentPrefix = randomBytes(4).toString('hex'),
): Promise<RunSubject & { readonly logger: Logger }> {
  const stateDirectory = await mkdtemp(join(tmpdir(), 'rigel-subject-'))
  const runsDirectory = join(stateDirectory, 'runs')
  const sharedFolder = join(stateDirectory, 'shared')
  for (const folder of [runsDirectory, sharedFolder]) await mkdir(folder)
  const log: string[] = []
  const prepare = async (flowRunId: string) => {
    await mkdir(join(runsDirectory, flowRunId), { mode: 0o700 })
  }
  return {
    runsDirectory,
    sharedFolder,
    agentPrefix,
    settings,
    log,
    logger: createLogger({ level: 'DEBUG', pretty: false, destination: { write: line => void log.push(line) } }),
    prepare,
    spec: async (script, overrides = {}) => {
      const transitionId = agentPrefix + randomUUID().slice(8)
      const own = { transitionId, attempt: transitionId.slice(-8), name: 'test run', ...overrides }
      const spec = makeSpec({ settings }, script, { ...own, settings: { ...settings, ...overrides.settings } })
      await prepare(spec.flowRunId)
      return spec
    },
    [Symbol.asyncDispose]: () => rm(stateDirectory, { recursive: true, force: true }),
  }
}
