// What the rows stand on: one real Prefect 2.20.25 server, the packed command, and deployments whose runs write a ledger.

import { chmodSync, mkdirSync, readFileSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { ApiError } from '../src/prefect/errors.ts'
import type { Deployment } from '../src/prefect/types.ts'
import { never, openStage, type Stage } from '../test/agent/stage.ts'
import { type PrefectServer, startPrefectServer } from '../test/support/prefect-server.ts'
import { type AgentOptions, type BenchAgent, startAgent } from './agents.ts'
import { buildPacked, type Packed } from './packed.ts'
import { type Recorder, startRecorder } from './recorder.ts'

/** What a run of the bench is: a command named by the block, a plain executable, a Python flow under Prefect's engine. */
export type Work = 'command' | 'executable' | 'engine'

const mostAttempts = 50
const TMPFS = 0x01021994

export class Ground implements AsyncDisposable {
  readonly server: PrefectServer
  readonly packed: Packed

  private constructor(server: PrefectServer, packed: Packed) {
    this.server = server
    this.packed = packed
  }

  static async open(): Promise<Ground> {
    const packed = await buildPacked()
    try {
      return new Ground(await startPrefectServer('prefect2'), packed)
    } catch (error) {
      await packed[Symbol.asyncDispose]()
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]()
    await this.packed[Symbol.asyncDispose]()
  }
}

/** One agent's corner: a queue and a ledger of its own, its recorder, and what it is to run. */
export class Corner implements AsyncDisposable {
  readonly stage: Stage
  readonly recorder: Recorder
  readonly #ground: Ground

  private constructor(ground: Ground, stage: Stage, recorder: Recorder) {
    this.#ground = ground
    this.stage = stage
    this.recorder = recorder
  }

  static async open(ground: Ground): Promise<Corner> {
    const stage = await openStage(ground.server.apiUrl)
    if (statfsSync(stage.directory).type === TMPFS) {
      throw new Error(`${stage.directory} is memory, not a disk: the journal would cost nothing there. Set TMPDIR.`)
    }
    writeFileSync(stage.ledgerFile, '')
    return new Corner(ground, stage, await startRecorder(ground.server.apiUrl))
  }

  start(options: Pick<AgentOptions, 'kind' | 'limit' | 'environment'>): Promise<BenchAgent> {
    const { apiUrl } = this.recorder
    return startAgent({ ...options, packed: this.#ground.packed, apiUrl, queue: this.stage.queue })
  }

  async deploy(work: Work): Promise<Deployment> {
    const code = join(this.stage.directory, work)
    mkdirSync(code)
    // The server keeps one deployment of a name: two corners would take it from each other.
    const name = `${work}-${this.stage.queue}`
    switch (work) {
      case 'command': {
        const script = this.#writeScript(code)
        const block = await this.#createBlock({ command: [script] })
        return this.stage.deploy({ name, entrypoint: 'flow.py:f', infrastructure_document_id: block })
      }
      case 'executable': {
        this.#writeScript(code)
        const block = await this.#createBlock({})
        return this.stage.deploy({ name, path: code, entrypoint: './job', infrastructure_document_id: block })
      }
      case 'engine': {
        const ledger = JSON.stringify(this.stage.ledgerFile)
        const text = `import os, time
from prefect import flow
def note(what):
    with open(${ledger}, "a") as ledger:
        ledger.write(f"{what} {os.environ['PREFECT__FLOW_RUN_ID']} {time.time_ns() // 1000}\\n")
@flow
def f():
    note("START")
    note("END")
`
        writeFileSync(join(code, 'flow.py'), text)
        const block = await this.#createBlock({})
        return this.stage.deploy({ name, path: code, entrypoint: 'flow.py:f', infrastructure_document_id: block })
      }
    }
  }

  /** As little as a run can do and still be known to have been: bash tells the time to the microsecond by itself. */
  #writeScript(code: string): string {
    const path = join(code, 'job')
    const note = (what: string) =>
      `echo "${what} $PREFECT__FLOW_RUN_ID \${EPOCHREALTIME/[^0-9]/}" >>'${this.stage.ledgerFile}'\n`
    writeFileSync(path, `#!/bin/bash\n${note('START')}${note('END')}`)
    chmodSync(path, 0o755)
    return path
  }

  /** Runs talk to the server itself, so that the recorder hears the agent alone. */
  async #createBlock(data: Readonly<Record<string, unknown>>): Promise<string> {
    const { client } = this.stage
    const type = await client.readBlockTypeBySlug('process', never)
    if (!type) throw new Error('the server knows no process block')
    const [schema] = await client.readBlockSchemas(type.id, never)
    if (!schema) throw new Error('the server knows no schema of the process block')
    const env = { PREFECT_API_URL: this.stage.apiUrl }
    const block = { is_anonymous: true, data: { ...data, env }, block_type_id: type.id, block_schema_id: schema.id }
    return (await client.createBlockDocument(block, never)).id
  }

  /** Runs that are due at once, made by a few callers, as many as a server on SQLite bears. */
  async createRuns(deployment: Deployment, count: number): Promise<readonly string[]> {
    const ids: string[] = []
    let left = count
    const lane = async (): Promise<void> => {
      while (left-- > 0) ids.push(await this.#createRun(deployment))
    }
    await Promise.all([lane(), lane(), lane()])
    return ids
  }

  /** A server on SQLite answers 503 as soon as several write at once, and agents are writing: nothing was made then. */
  async #createRun(deployment: Deployment): Promise<string> {
    for (let attempt = 1; ; attempt++) {
      try {
        return (await this.stage.run(deployment)).id
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 503 || attempt === mostAttempts) throw error
        await delay(200)
      }
    }
  }

  /** When runs began, by their own clock: milliseconds of the epoch, by flow run. Also tells how often. */
  readLedger(what: 'START' | 'END'): ReadonlyMap<string, readonly number[]> {
    const found = new Map<string, number[]>()
    for (const line of readFileSync(this.stage.ledgerFile, 'utf8').split('\n')) {
      const [word, id = '', microseconds] = line.split(' ')
      if (word === what) found.set(id, [...(found.get(id) ?? []), Number(microseconds) / 1000])
    }
    return found
  }

  forget(): void {
    writeFileSync(this.stage.ledgerFile, '')
    this.recorder.forget()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.recorder[Symbol.asyncDispose]()
    await this.stage[Symbol.asyncDispose]()
  }
}
