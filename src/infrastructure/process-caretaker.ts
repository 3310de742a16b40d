// Starts the caretaker, which keeps output files in bounds when this agent dies and its runs live on.
//
// One process for all runs, started when a run has lived for a moment, so that short ones never pay for it.

import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import type { Logger } from '../logger.ts'

const SCRIPT = join(import.meta.dirname, 'caretaker.sh')
const LOOK_EVERY_SECONDS = 60

export interface CaretakerOptions {
  readonly runsDirectory: string
  readonly capBytes: number
  readonly shell: string
  /** Where `find`, `tail` and `sleep` are looked for. */
  readonly path: string | undefined
  readonly logger: Logger
  /** Default 60. */
  readonly lookEverySeconds?: number
}

export class Caretaker {
  /** Names this life of the agent in the runs that it keeps. */
  readonly keeper = randomBytes(6).toString('hex')
  readonly #options: CaretakerOptions
  /** Kept, for the pipe to its standard input must stay open as long as this process lives. */
  #child: ChildProcess | undefined

  constructor(options: CaretakerOptions) {
    this.#options = options
  }

  start(): void {
    if (this.#child) return
    const { runsDirectory, capBytes, shell, path, logger, lookEverySeconds = LOOK_EVERY_SECONDS } = this.#options
    const words = [SCRIPT, runsDirectory, this.keeper, String(capBytes), String(lookEverySeconds)]
    const env = { PATH: path ?? '/usr/bin:/bin' }
    const child = spawn(shell, words, { cwd: '/', env, detached: true, stdio: ['pipe', 'ignore', 'ignore'] })
    this.#child = child
    child.unref()
    const { stdin } = child
    if (stdin && 'unref' in stdin && typeof stdin.unref === 'function') stdin.unref()
    // Without it only the disk of a machine without an agent is less well guarded: no reason to end a run.
    const warn = (error: Error): void => logger.warn({ error: error.message }, 'no caretaker for output files')
    child.once('error', warn)
    stdin?.once('error', warn)
  }
}
