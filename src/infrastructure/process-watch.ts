// Notices the end of runs, and keeps their output moving, the same for children of this agent and of an earlier one.
//
// The exit file is the truth. Looked at on each beat of one clock for all runs, and at once when a supervisor that is our
// own child ends. A run whose supervisor was killed is watched by pid and start time.

import type { Exit, OutputSink } from './infrastructure.ts'
import { explainExitCode } from './process-exit.ts'
import { Output } from './process-output.ts'
import { type ProcessRecord, readExitCode } from './process-record.ts'
import { isAlive } from './process-table.ts'

/** Output is shipped, and the end of a run that is nobody's child is noticed, this late at most. */
const BEAT_MS = 1000

/** Wakes whoever waits on it, once per beat, with one timer however many they are, and none when there are none. */
export class Clock {
  readonly #waiting = new Map<string, () => void>()
  #timer: NodeJS.Timeout | undefined
  readonly #onBeat: () => void

  /** `onBeat` is called when somebody has waited until a beat. */
  constructor(onBeat: () => void) {
    this.#onBeat = onBeat
  }

  /** Resolves at the next beat, at `wake(name)`, or when the signal is aborted. */
  next(name: string, signal: AbortSignal): Promise<void> {
    return new Promise(resolve => {
      const done = (): void => {
        signal.removeEventListener('abort', done)
        if (this.#waiting.get(name) === done) this.#waiting.delete(name)
        if (this.#waiting.size === 0) this.#stop()
        resolve()
      }
      signal.addEventListener('abort', done)
      // Two who wait for the same run: the first one looks again at once, and then waits as well.
      this.#waiting.get(name)?.()
      this.#waiting.set(name, done)
      this.#timer ??= setTimeout(() => this.#beat(), BEAT_MS)
      if (signal.aborted) done()
    })
  }

  wake(name: string): void {
    this.#waiting.get(name)?.()
  }

  #beat(): void {
    this.#timer = undefined
    this.#onBeat()
    // Copied, for whoever is woken may wait again at once.
    for (const done of Array.from(this.#waiting.values())) done()
  }

  #stop(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }
}

export interface Here {
  readonly bootId: string
  readonly pidNamespace: string
}

export interface WatchOptions {
  readonly record: ProcessRecord
  readonly here: Here
  readonly clock: Clock
  readonly capBytes: number
  /** This life of the agent. */
  readonly keeper: string
  readonly sink: OutputSink
}

/** Resolves when the run has ended. Rejects with the signal's reason when it is aborted. */
export async function watchRun(options: WatchOptions, signal: AbortSignal): Promise<Exit> {
  const { record, here, clock, capBytes, keeper, sink } = options
  const { folder } = record.submission
  const output = new Output({ folder, capBytes, isStreamed: record.isStreamed, keeper })
  for (;;) {
    signal.throwIfAborted()
    // The end first, the output after it: so nothing that was written before the end is missed.
    const end = lookForEnd(record, here)
    await output.ship(sink, end !== undefined)
    if (end) return { ...end, outputTail: output.readTail() }
    await clock.next(folder, signal)
  }
}

type End = Exit extends infer E ? (E extends Exit ? Omit<E, 'outputTail'> : never) : never

/** How the run has ended, or undefined while it goes on. */
export function lookForEnd(record: ProcessRecord, here: Here): End | undefined {
  const known = readEnd(record)
  if (known) return known
  const elsewhere = whyElsewhere(record, here)
  if (elsewhere) return { kind: 'vanished', reason: elsewhere }
  if (isAlive(record.supervisor) || isAlive(record.run)) return undefined
  // The supervisor may have written it just before it ended.
  return (
    readEnd(record) ?? {
      kind: 'vanished',
      reason: `process ${record.run.pid} has ended, but its supervisor (process ${record.supervisor.pid}) was killed: the exit code is not known`,
    }
  )
}

function readEnd({ submission }: ProcessRecord): End | undefined {
  const code = readExitCode(submission)
  return code === undefined ? undefined : { kind: 'exited', ...explainExitCode(code) }
}

/** Why the record's pids mean nothing here, or undefined when they do. */
export function whyElsewhere(record: ProcessRecord, here: Here): string | undefined {
  if (record.bootId !== here.bootId) return 'the machine was started anew while it ran'
  if (record.pidNamespace !== here.pidNamespace)
    return 'it ran in another container (pid namespace), which this agent cannot see'
  return undefined
}
