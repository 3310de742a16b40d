// A stage for tests of the agent: a real server, deployments whose flow code lies in a folder, agents as child processes,
// and a ledger file in which each run writes START and END with its process id. The ledger is the judge.

import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { createLogger } from '../../src/logger.ts'
import { PrefectClient } from '../../src/prefect/client.ts'
import type { NewDeployment } from '../../src/prefect/requests.ts'
import type { Deployment, FlowRun, StateType } from '../../src/prefect/types.ts'
import { makeDirectory } from '../support/directory.ts'
import { until } from '../support/until.ts'

/** What a test says of the agent that it starts; see agent-main.ts. */
export interface AgentPlan {
  readonly apiUrl: string
  /** What runs are told; differs from `apiUrl` where a proxy stands before the agent only. */
  readonly engineApiUrl?: string
  readonly stateDirectory: string
  readonly name?: string
  readonly queues: readonly string[]
  readonly prefixes?: readonly string[]
  readonly prefetchSeconds?: number
  readonly limit?: number
  readonly queryIntervalSeconds?: number
  readonly cancelGraceSeconds?: number
  readonly lingerSeconds?: number
  readonly drainSeconds?: number
  readonly stoppedRuns?: 'crashed' | 'scheduled'
  readonly onStop?: 'detach' | 'kill' | 'kill-own'
  readonly python?: string
  readonly fetchImage?: string
  readonly runOnce?: boolean
  readonly waitForLock?: boolean
  /** The process kills itself when a run comes to this point. */
  readonly killAt?: string
  /** Each point that a run passes is appended to this file. */
  readonly pointsFile?: string
}

/** As the command in a checkout does: it halves the processor time of a start. */
const compiled = fileURLToPath(new URL('../../node_modules/.cache/compiled', import.meta.url))

export const never = new AbortController().signal

export interface LedgerLine {
  readonly what: 'START' | 'END'
  readonly flowRunId: string
  readonly pid: number
}

export class AgentProcess implements AsyncDisposable {
  readonly child: ChildProcess
  #output = ''

  constructor(plan: AgentPlan, environment: NodeJS.ProcessEnv) {
    const main = fileURLToPath(new URL('./agent-main.ts', import.meta.url))
    this.child = spawn(process.execPath, [main, JSON.stringify(plan)], {
      env: { NODE_COMPILE_CACHE: compiled, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const keep = (chunk: Buffer) => {
      this.#output += chunk
    }
    this.child.stdout?.on('data', keep)
    this.child.stderr?.on('data', keep)
  }

  get output(): string {
    return this.#output
  }

  get hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name)
  }

  /** Waits until it has begun to poll, and so hears signals. */
  async isPolling(): Promise<void> {
    await until(() => this.#output.includes('polling work queue'), { what: 'the agent to poll' })
  }

  /** Resolves to the exit code, or the signal's name. */
  async ended(): Promise<number | NodeJS.Signals> {
    if (!this.hasEnded) await once(this.child, 'exit')
    return this.child.exitCode ?? this.child.signalCode ?? 0
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.hasEnded) {
      this.child.kill('SIGKILL')
      await this.ended()
    }
  }
}

export interface Command {
  /** Body of a sh script; `$1` and so on are what the entrypoint gives. */
  readonly script: string
  readonly deployment?: Partial<NewDeployment>
}

export class Stage implements AsyncDisposable {
  readonly apiUrl: string
  readonly client: PrefectClient
  readonly directory: string
  readonly queue: string
  readonly ledgerFile: string
  readonly #dispose: () => Promise<void>
  #serial = 0

  constructor(apiUrl: string, client: PrefectClient, directory: string, queue: string, dispose: () => Promise<void>) {
    this.apiUrl = apiUrl
    this.client = client
    this.directory = directory
    this.queue = queue
    this.ledgerFile = join(directory, 'ledger')
    this.#dispose = dispose
  }

  get stateDirectory(): string {
    return join(this.directory, 'state')
  }

  /** Starts an agent on this stage's queue and state folder, unless the plan says otherwise. */
  startAgent(plan: Partial<AgentPlan> = {}): AgentProcess {
    const whole = { apiUrl: this.apiUrl, stateDirectory: this.stateDirectory, queues: [this.queue], ...plan }
    const { PATH, RIGEL_TEST_FILE } = process.env
    const environment = {
      PATH,
      HOME: this.directory,
      LEDGER: this.ledgerFile,
      ...(RIGEL_TEST_FILE ? { RIGEL_TEST_FILE } : {}),
      PREFECT_HOME: join(this.directory, 'prefect'),
      PREFECT_LOGGING_LEVEL: 'WARNING',
    }
    return new AgentProcess(whole, environment)
  }

  /** Words of a script that wait until the test calls `give` with the same word: what a test does while it waits takes its time. */
  awaits(word: string): string {
    return `while [ ! -e ${this.#given(word)} ]; do sleep 0.2; done`
  }

  give(word: string): void {
    writeFileSync(this.#given(word), '')
  }

  #given(word: string): string {
    return join(this.directory, `given-${word}`)
  }

  /** A deployment of a plain command that notes START and END in the ledger around `script`. */
  async deployCommand({ script, deployment = {} }: Command): Promise<Deployment> {
    const code = join(this.directory, `code-${++this.#serial}`)
    mkdirSync(code)
    const text = `#!/bin/sh
echo "START $PREFECT__FLOW_RUN_ID $$" >> "$LEDGER"
( ${script} )
code=$?
echo "END $PREFECT__FLOW_RUN_ID $$" >> "$LEDGER"
exit $code
`
    writeFileSync(join(code, 'job.sh'), text)
    chmodSync(join(code, 'job.sh'), 0o755)
    return this.deploy({ path: code, entrypoint: './job.sh', ...deployment })
  }

  async deploy(deployment: Partial<NewDeployment>): Promise<Deployment> {
    // Deployments are known by flow and name: another stage of this server must not meet ours.
    const name = `${this.queue}-d${++this.#serial}`
    const flow = await this.client.createFlow(`flow-${name}`, never)
    return this.client.createDeployment({ name, flow_id: flow.id, work_queue_name: this.queue, ...deployment }, never)
  }

  run(deployment: Deployment, run: Parameters<PrefectClient['createFlowRunFromDeployment']>[1] = {}): Promise<FlowRun> {
    return this.client.createFlowRunFromDeployment(deployment.id, run, never)
  }

  /** A call that our client does not know. A server on SQLite may answer 503 when another call writes: then it is repeated. */
  async send(method: 'DELETE' | 'PATCH' | 'POST', path: string, body: object = {}): Promise<void> {
    const headers = { 'content-type': 'application/json' }
    const { status, text } = await until(
      async () => {
        const answer = await fetch(`${this.apiUrl}${path}`, { method, headers, body: JSON.stringify(body) })
        const text = await answer.text()
        return answer.status === 503 ? undefined : { status: answer.status, text }
      },
      { everyMs: 250, what: `${method} ${path}` },
    )
    assert.ok(status < 300, `${method} ${path} answered ${status}: ${text}`)
  }

  async readRun(id: string): Promise<FlowRun> {
    const run = await this.client.readFlowRun(id, never)
    if (!run) throw new Error(`the server does not know flow run ${id}`)
    return run
  }

  /** Waits until the run is in one of these states. */
  waitFor(id: string, types: readonly StateType[], timeoutMs?: number): Promise<FlowRun> {
    return until(
      async () => {
        const run = await this.readRun(id)
        return run.state_type !== null && types.includes(run.state_type) ? run : undefined
      },
      { timeoutMs, everyMs: 250, what: `flow run ${id} to be ${types.join(' or ')}` },
    )
  }

  /** Waits until the server has a log of this run that says this; an engine may send it after its final state. */
  async hasLogged(flowRunId: string, message: string): Promise<void> {
    const filter = { logs: { flow_run_id: { any_: [flowRunId] } } }
    await until(async () => (await this.client.readLogs(filter, never)).some(log => log.message === message), {
      everyMs: 200,
      what: `a log "${message}"`,
    })
  }

  /** What the runs have written, oldest first; of one run only, if its id is given. */
  ledger(flowRunId?: string): LedgerLine[] {
    if (!existsSync(this.ledgerFile)) return []
    return readFileSync(this.ledgerFile, 'utf8')
      .trim()
      .split('\n')
      .map(line => {
        const [what, id, pid] = line.split(' ')
        return { what: what === 'START' ? ('START' as const) : ('END' as const), flowRunId: id ?? '', pid: Number(pid) }
      })
      .filter(line => flowRunId === undefined || line.flowRunId === flowRunId)
  }

  starts(flowRunId: string): number {
    return this.ledger(flowRunId).filter(line => line.what === 'START').length
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispose()
  }
}

let stages = 0

/**
 * Sets a stage before a server that runs already; a queue and a folder of its own, so that tests do not meet. When it is
 * closed, `clearAway` removes what agents have left elsewhere; it is given their state directory.
 */
export async function openStage(apiUrl: string, clearAway?: (stateDirectory: string) => Promise<void>): Promise<Stage> {
  const directory = await makeDirectory()
  const logger = createLogger({ level: 'ERROR', pretty: true, destination: process.stderr })
  // A server on SQLite may answer 503 for a while under several agents; setting the stage waits for it.
  const client = new PrefectClient({ url: apiUrl, logger, maxRetries: 12 })
  const queue = `queue-${process.pid}-${++stages}`
  const stage = new Stage(apiUrl, client, directory.path, queue, async () => {
    await clearAway?.(stage.stateDirectory)
    await client[Symbol.asyncDispose]()
    await directory[Symbol.asyncDispose]()
  })
  return stage
}
