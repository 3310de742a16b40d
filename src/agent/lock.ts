// One agent per state folder. The lock is SQLite's on an empty file: the kernel gives it back however the holder dies,
// and it means the same in two containers that share a volume, where a process id would not.
//
// Beside it lie two small notes: `agent.json`, who holds the lock and how many runs it drains, and `successor.json`,
// refreshed by an agent that waits, so that a draining one knows that it may let go.

import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import * as v from 'valibot'
import { sleep } from '../async/sleep.ts'
import type { Logger } from '../logger.ts'

const HolderShape = v.object({ pid: v.number(), host: v.string(), runs: v.number(), draining: v.boolean() })
export type Holder = v.InferOutput<typeof HolderShape>

const retryMs = 500
/** A successor writes every half second; after this long without it is taken to have given up. */
const successorFreshMs = 5_000

export class StateLock implements Disposable {
  readonly #database: DatabaseSync
  readonly #state: string

  private constructor(database: DatabaseSync, state: string) {
    this.#database = database
    this.#state = state
  }

  /** Takes the lock if it is free, else undefined. */
  static take(stateDirectory: string): StateLock | undefined {
    const database = new DatabaseSync(join(stateDirectory, 'lock'), { timeout: 0 })
    try {
      database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE')
      return new StateLock(database, stateDirectory)
    } catch (error) {
      database.close()
      if (error instanceof Error && /locked|busy/i.test(error.message)) return undefined
      throw error
    }
  }

  /** Waits for the lock, saying whose drain is waited for; undefined when the signal came first. */
  static async wait(stateDirectory: string, logger: Logger, signal: AbortSignal): Promise<StateLock | undefined> {
    const note = join(stateDirectory, 'successor.json')
    let said = ''
    try {
      while (!signal.aborted) {
        const lock = StateLock.take(stateDirectory)
        if (lock) return lock
        writeNote(note, { pid: process.pid })
        said = sayHolder(readHolder(stateDirectory), said, logger)
        await sleep(retryMs, signal)
      }
    } finally {
      rmSync(note, { force: true })
    }
    return undefined
  }

  /** Tells those who wait how far we are. */
  describe(holder: Holder): void {
    writeNote(join(this.#state, 'agent.json'), holder)
  }

  /** True while another agent waits for this lock. */
  hasSuccessor(): boolean {
    const note = statSync(join(this.#state, 'successor.json'), { throwIfNoEntry: false })
    return note !== undefined && Date.now() - note.mtimeMs < successorFreshMs
  }

  [Symbol.dispose](): void {
    rmSync(join(this.#state, 'agent.json'), { force: true })
    this.#database.close()
  }
}

/** Who holds the lock of this state folder, as far as it has said so. */
export function readHolder(stateDirectory: string): Holder | undefined {
  try {
    return v.parse(HolderShape, JSON.parse(readFileSync(join(stateDirectory, 'agent.json'), 'utf8')))
  } catch {
    return undefined // not written yet, or by another release: it only informs people
  }
}

function sayHolder(holder: Holder | undefined, said: string, logger: Logger): string {
  const now = `${holder?.pid} ${holder?.runs} ${holder?.draining}`
  if (now !== said) {
    logger.warn(
      { holder_pid: holder?.pid, holder_host: holder?.host, runs_left: holder?.runs, draining: holder?.draining },
      'another agent holds this state folder; waiting for it to let go',
    )
  }
  return now
}

function writeNote(file: string, data: unknown): void {
  try {
    writeFileSync(`${file}.${process.pid}`, JSON.stringify(data), { mode: 0o600 })
    renameSync(`${file}.${process.pid}`, file)
  } catch {
    rmSync(`${file}.${process.pid}`, { force: true }) // notes only inform people; a full disk may cost them
  }
}
