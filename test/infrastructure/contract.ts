// What every infrastructure promises, whatever it starts: one suite that runs over each driver.
//
// In: a way to make a driver, to make it again as the next life of an agent would, and what it needs to run a shell text.
// Only the seam is used: submit, wait, kill, reattach, release. What a driver does beyond it has tests of its own.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { suite } from 'node:test'
import type { Exit, Handle, Infrastructure, RunSpec, Value } from '../../src/infrastructure/infrastructure.ts'
import { makeDirectory } from '../support/directory.ts'
import { until } from '../support/until.ts'

export interface Subject extends AsyncDisposable {
  readonly infrastructure: Infrastructure
  /** A second driver over the same state, as an agent that was started anew has it. */
  startAnew(): Infrastructure
  /** Makes what an agent's journal makes for a run before it is submitted. */
  prepare(flowRunId: string): Promise<void>
  /** Block fields that a run needs here, such as an image. */
  readonly settings: Readonly<Record<string, unknown>>
  /** A folder of this machine, and the block fields with which a run has it at the same path. */
  readonly shared: { readonly folder: string; readonly settings: Readonly<Record<string, unknown>> }
}

export interface ContractOptions {
  readonly skip: string | false
  readonly makeSubject: () => Promise<Subject>
  /** How long one run may take from submit to its noticed end; containers are slower than processes. */
  readonly timeoutMs: number
  /** How many tests run at once, for most of the time they wait; default 1. */
  readonly concurrency?: number
}

/** A try to run `script` by `sh -c`; `words` are its `$1`, `$2` … */
export function makeSpec(
  subject: Pick<Subject, 'settings'>,
  script: string,
  { words = [], ...overrides }: Partial<RunSpec> & { readonly words?: readonly Value[] } = {},
): RunSpec {
  const transitionId = randomUUID()
  return {
    flowRunId: randomUUID(),
    transitionId,
    attempt: transitionId.slice(-8),
    name: 'contract',
    settings: subject.settings,
    command: ['sh', '-c', script, 'sh', ...words],
    env: {},
    unsetEnv: [],
    labels: {},
    workspace: undefined,
    files: {},
    ...overrides,
  }
}

/** For scripts that wait until the test lets them go on: by a time, a busy machine could be too late for them. */
const untilLetGo = 'while [ ! -e "$GO" ]; do sleep 0.1; done'

function makeWaitingSpec({ settings, shared }: Subject, script: string): RunSpec {
  const env = { GO: join(shared.folder, 'go') }
  return makeSpec({ settings: { ...settings, ...shared.settings } }, script, { env })
}

async function letGo({ shared }: Subject): Promise<void> {
  await writeFile(join(shared.folder, 'go'), '')
}

export const ignoreOutput = (): void => {}

/** A signal that is never aborted. */
export const unstopped = new AbortController().signal

export function testContract(driver: string, options: ContractOptions): void {
  const { concurrency = 1, timeoutMs } = options
  suite(driver, { concurrency, timeout: 60 * timeoutMs }, () => testPromises(options))
}

function testPromises({ skip, makeSubject, timeoutMs }: ContractOptions): void {
  const it = (sentence: string, body: (subject: Subject) => Promise<void>): void => {
    test(sentence, { skip, timeout: 4 * timeoutMs }, async () => {
      await using subject = await makeSubject()
      await body(subject)
    })
  }

  /** Submits, and sees to it that nothing is left of the run when the test ends. */
  const start = async (subject: Subject, spec: RunSpec): Promise<Run> => {
    await subject.prepare(spec.flowRunId)
    return new Run(subject.infrastructure, await subject.infrastructure.submit(spec, unstopped), timeoutMs)
  }

  it('a run that ends well exits with 0 and delivers its lines in order', async subject => {
    await using run = await start(subject, makeSpec(subject, 'echo one; echo two >&2; sleep 0.1; printf three'))
    const exit = await run.wait()
    assert.deepEqual(pick(exit), { kind: 'exited', statusCode: 0, signal: undefined })
    assert.deepEqual(run.lines.toSorted(), ['one', 'three', 'two'])
    assert.deepEqual(exit.outputTail.toSorted(), ['one', 'three', 'two'])
  })

  it('a run that fails exits with its code and the last lines of its output', async subject => {
    await using run = await start(subject, makeSpec(subject, 'for i in $(seq 30); do echo line $i; done; exit 3'))
    const exit = await run.wait()
    assert.deepEqual(pick(exit), { kind: 'exited', statusCode: 3, signal: undefined })
    assert.equal(exit.outputTail.length, 20)
    assert.equal(exit.outputTail.at(-1), 'line 30')
    assert.equal(run.lines.length, 30)
  })

  it('a handle names its type, its identifier and the attempt', async subject => {
    const spec = makeSpec(subject, 'exit 0')
    await using run = await start(subject, spec)
    const { type, identifier, flowRunId, attempt, transitionId } = run.handle
    assert.match(type, /^[a-z-]+$/)
    assert.match(identifier, /.+:.+/)
    assert.deepEqual([flowRunId, attempt, transitionId], [spec.flowRunId, spec.attempt, spec.transitionId])
    await run.wait()
  })

  it('variables, files and the workspace reach the run', async subject => {
    await using directory = await makeDirectory()
    const workspace = join(directory.path, 'code')
    await mkdir(workspace)
    await writeFile(join(workspace, 'hello.txt'), 'from the workspace\n')
    const spec = makeSpec(subject, 'cat "$1"; cat "$FILE"; echo; echo "$GREETING"', {
      workspace,
      files: { 'small.json': '{"a":1}' },
      env: { GREETING: "it's $HOME\tand ünicode", FILE: { in: 'files', path: 'small.json' } },
      words: [{ in: 'workspace', path: 'hello.txt' }],
    })
    await using run = await start(subject, spec)
    await run.wait()
    assert.deepEqual(run.lines, ['from the workspace', '{"a":1}', "it's $HOME\tand ünicode"])
  })

  it('the signal of wait means stop looking: the run goes on', async subject => {
    await using run = await start(subject, makeWaitingSpec(subject, `echo here; ${untilLetGo}; exit 5`))
    const reason = new Error('enough')
    await assert.rejects(run.waitUntilSignal(reason), reason)
    await letGo(subject)
    assert.deepEqual(pick(await run.wait()), { kind: 'exited', statusCode: 5, signal: undefined })
  })

  it('one attempt submitted twice is started once', async subject => {
    const spec = makeSpec(subject, 'echo START; sleep 1')
    await using run = await start(subject, spec)
    const again = await subject.startAnew().submit(spec, unstopped)
    assert.equal(again.identifier, run.handle.identifier)
    await run.wait()
    assert.deepEqual(run.lines, ['START'])
  })

  it('one attempt submitted by two agents at the same moment is started once', async subject => {
    const spec = makeSpec(subject, 'echo START; sleep 1')
    await subject.prepare(spec.flowRunId)
    const drivers = [subject.infrastructure, subject.startAnew()]
    const [one, two] = await Promise.all(drivers.map(driver => driver.submit(spec, unstopped)))
    assert.ok(one && two)
    await using run = new Run(subject.infrastructure, one, timeoutMs)
    assert.equal(two.identifier, one.identifier)
    await run.wait()
    assert.deepEqual(run.lines, ['START'])
  })

  it('what was never submitted is not found', async subject => {
    const spec = makeSpec(subject, 'exit 0')
    await subject.prepare(spec.flowRunId)
    assert.equal(await subject.infrastructure.reattach(spec, undefined, unstopped), undefined)
  })

  it('a living run is found by the next agent, with or without its handle', async subject => {
    const spec = makeWaitingSpec(subject, `${untilLetGo}; exit 6`)
    await using run = await start(subject, spec)
    const next = subject.startAnew()
    assert.deepEqual(await next.reattach(spec, run.handle, unstopped), run.handle)
    const found = await next.reattach(spec, undefined, unstopped)
    assert.deepEqual(found, run.handle)
    await letGo(subject)
    const exit = await next.wait(run.handle, ignoreOutput, unstopped)
    assert.deepEqual(pick(exit), { kind: 'exited', statusCode: 6, signal: undefined })
  })

  it('an end that nobody saw is told to the next agent, with its output', async subject => {
    const spec = makeSpec(subject, 'echo last words; exit 7')
    await using run = await start(subject, spec)
    await run.wait()
    const next = subject.startAnew()
    assert.deepEqual(await next.reattach(spec, undefined, unstopped), run.handle)
    const exit = await next.wait(run.handle, ignoreOutput, unstopped)
    assert.deepEqual(pick(exit), { kind: 'exited', statusCode: 7, signal: undefined })
    assert.deepEqual(exit.outputTail, ['last words'])
  })

  it('lines that one agent has shipped are not shipped again by the next', async subject => {
    const script = `echo one; echo two; ${untilLetGo}; echo three`
    await using run = await start(subject, makeWaitingSpec(subject, script))
    const stop = new AbortController()
    const waiting = subject.infrastructure.wait(run.handle, run.take, stop.signal)
    waiting.catch(ignoreOutput)
    await until(() => run.lines.length === 2, { timeoutMs })
    stop.abort()
    await assert.rejects(waiting)
    const later: string[] = []
    const next = subject.startAnew()
    const ended = next.wait(run.handle, lines => void later.push(...lines), unstopped)
    await letGo(subject)
    await ended
    assert.deepEqual([run.lines, later], [['one', 'two'], ['three']])
  })

  it('kill asks first: a run may end by itself within the grace', async subject => {
    await using run = await start(
      subject,
      makeSpec(subject, "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.1; done"),
    )
    const ended = run.wait()
    await run.hasSaid('ready')
    await subject.infrastructure.kill(run.handle, 30, unstopped)
    assert.deepEqual(pick(await ended), { kind: 'exited', statusCode: 9, signal: undefined })
    assert.ok(run.lines.includes('bye'))
  })

  it('kill forces what does not end within the grace', async subject => {
    await using run = await start(subject, makeSpec(subject, "trap '' TERM; echo ready; while :; do sleep 0.1; done"))
    const ended = run.wait()
    await run.hasSaid('ready')
    await subject.infrastructure.kill(run.handle, 1, unstopped)
    const exit = await ended
    assert.ok(exit.kind === 'vanished' || exit.signal === 'SIGKILL' || exit.statusCode === 137, JSON.stringify(exit))
  })

  it('kill may be repeated, by the next agent too, and after the end', async subject => {
    await using run = await start(subject, makeSpec(subject, 'echo ready; exec sleep 60'))
    const ended = run.wait()
    await run.hasSaid('ready')
    await Promise.all([
      subject.infrastructure.kill(run.handle, 1, unstopped),
      subject.startAnew().kill(run.handle, 1, unstopped),
    ])
    await ended
    await subject.infrastructure.kill(run.handle, 1, unstopped)
  })

  it('release may be repeated', async subject => {
    await using run = await start(subject, makeSpec(subject, 'exit 0'))
    await run.wait()
    await subject.infrastructure.release(run.handle, unstopped)
    await subject.startAnew().release(run.handle, unstopped)
  })

  it('twenty runs at once each end with their own code and their own output', async subject => {
    const codes = Array.from({ length: 20 }, (_, code) => code)
    await Promise.all(
      codes.map(async code => {
        await using run = await start(subject, makeSpec(subject, `echo ${code}; exit ${code}`))
        assert.deepEqual(pick(await run.wait()), { kind: 'exited', statusCode: code, signal: undefined })
        assert.deepEqual(run.lines, [String(code)])
      }),
    )
  })
}

/** One started run, which is ended and released when its owner's block ends. */
class Run implements AsyncDisposable {
  readonly lines: string[] = []
  readonly handle: Handle
  readonly #infrastructure: Infrastructure
  readonly #timeoutMs: number

  constructor(infrastructure: Infrastructure, handle: Handle, timeoutMs: number) {
    this.#infrastructure = infrastructure
    this.handle = handle
    this.#timeoutMs = timeoutMs
  }

  readonly take = (lines: readonly string[]): void => {
    this.lines.push(...lines)
  }

  async wait(): Promise<Exit> {
    return await this.#infrastructure.wait(this.handle, this.take, AbortSignal.timeout(this.#timeoutMs))
  }

  /** Waits until the run has said something, then aborts with `reason`. */
  async waitUntilSignal(reason: Error): Promise<Exit> {
    const stop = new AbortController()
    const waiting = this.#infrastructure.wait(this.handle, this.take, stop.signal)
    waiting.catch(ignoreOutput)
    await until(() => this.lines.length > 0, { timeoutMs: this.#timeoutMs })
    stop.abort(reason)
    return await waiting
  }

  async hasSaid(line: string): Promise<void> {
    await until(() => this.lines.includes(line), { timeoutMs: this.#timeoutMs, what: `the run to say ${line}` })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const deadline = AbortSignal.timeout(this.#timeoutMs)
    await this.#infrastructure.kill(this.handle, 0, deadline)
    await this.#infrastructure.release(this.handle, deadline)
  }
}

/** The part of an exit that is the same everywhere. */
function pick(exit: Exit): unknown {
  return exit.kind === 'exited' ? { kind: exit.kind, statusCode: exit.statusCode, signal: exit.signal } : exit
}
