// A driver whose calls to the engine go through a proxy that counts, delays, loses and cuts them, and a ledger that says
// what ran.

import type { RunSpec } from '../../src/infrastructure/infrastructure.ts'
import { dockerLedger, type Ledger } from './docker-ledger.ts'
import { DockerProxy } from './docker-proxy.ts'
import { type DockerSubject, makeDockerSubject, type SubjectOptions } from './docker-subject.ts'

export interface Stage extends AsyncDisposable {
  readonly proxy: DockerProxy
  readonly subject: DockerSubject
  readonly ledger: Ledger
  spec(script: string, overrides?: Partial<RunSpec>): Promise<RunSpec>
}

export async function makeStage(more: SubjectOptions = {}): Promise<Stage> {
  const stack = new AsyncDisposableStack()
  const proxy = stack.use(await DockerProxy.start())
  const ledger = stack.use(await dockerLedger())
  const options = { environment: proxy.environment, settings: ledger.settings, ...more }
  const subject = stack.use(await makeDockerSubject(options))
  return {
    proxy,
    subject,
    ledger,
    spec: (script, overrides) => subject.spec(`echo START >> /ledger/marks; ${script}`, overrides),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

/** Calls as the proxy notes them. */
export const calls = {
  create: /^POST \/containers\/create/,
  start: /^POST \/containers\/[^/]+\/start/,
  inspect: /^GET \/containers\/[^/]+\/json/,
  /** One list for all that runs, every few seconds. */
  reconciliation: /GET \/containers\/json/,
  events: /^GET \/events/,
  logs: /^GET \/containers\/[^/]+\/logs/,
}
