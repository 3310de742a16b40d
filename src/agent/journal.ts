// The link between "claimed" and "launched", on disk: one folder per flow run, its record replaced whole by rename.
//
//   <state>/runs/<flow run id>/record.json    plus whatever the run's infrastructure and workspace keep beside it
//   <state>/trash/                             folders of reported runs, on their way out
//   <state>/unreadable/                        folders with records that nobody could read, kept for people
//   <state>/returned/                          returns.ts
//   <state>/reserve                            1 MiB that is freed when the disk is full, so that cleaning up can begin

import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { describeError, errorCode, isDiskFull, isHostError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { removeTree } from '../storage/workspace.ts'
import { type FoundRecord, type RunRecord, readRecord } from './record.ts'
import { Returns } from './returns.ts'

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
const reserveBytes = 1024 * 1024

/** The record cannot be written, for a reason that lies in this host; nothing may be done that it would have to remember. */
export class JournalError extends Error {
  constructor(cause: unknown) {
    const what = isDiskFull(cause) ? 'has no room for another record' : `cannot be written (${errorCode(cause)})`
    super(`the state folder ${what}`, { cause })
    this.name = 'JournalError'
  }
}

export class Journal {
  readonly runsDirectory: string
  readonly returns: Returns
  readonly #state: string
  readonly #trash: string
  readonly #reserve: string
  readonly #logger: Logger
  #serial = 0

  constructor(stateDirectory: string, logger: Logger) {
    this.#logger = logger
    this.#state = stateDirectory
    this.runsDirectory = join(stateDirectory, 'runs')
    this.#trash = join(stateDirectory, 'trash')
    this.returns = new Returns(stateDirectory)
    this.#reserve = join(stateDirectory, 'reserve')
  }

  /** Makes the folders, clears away what the last life left half removed. Throws when the state folder cannot be used. */
  async open(): Promise<void> {
    for (const directory of [this.#state, this.runsDirectory, this.#trash]) {
      mkdirSync(directory, { recursive: true, mode: 0o700 })
    }
    await this.#emptyTrash()
    this.returns.open()
    this.hasRoom()
  }

  /** Every run that an earlier life has left, by its folder's name. */
  *found(): Generator<{ flowRunId: string; found: FoundRecord }> {
    for (const flowRunId of readdirSync(this.runsDirectory)) {
      if (!uuidPattern.test(flowRunId)) continue
      yield { flowRunId, found: this.#read(flowRunId) }
    }
  }

  holds(flowRunId: string): boolean {
    return existsSync(join(this.directory(flowRunId), 'record.json'))
  }

  directory(flowRunId: string): string {
    return join(this.runsDirectory, flowRunId)
  }

  /**
   * Opens the run's folder with its first record, the intent to claim. Throws JournalError: the reserve is for runs
   * that are under way, never for a new one, and as long as it cannot be put back nothing new is begun.
   */
  async begin(record: RunRecord): Promise<void> {
    try {
      this.#restoreReserve()
      mkdirSync(this.directory(record.flowRunId), { recursive: true, mode: 0o700 })
      await this.#write(record, 'durable')
    } catch (error) {
      throw explain(error)
    }
  }

  /**
   * Replaces the record by rename. `durable` also asks the disk (fsync of file and folder): for claims and endings,
   * which must survive the machine; for the others the kernel's memory is enough to survive the agent.
   * Throws JournalError when there is no room, also after the reserve has been given up, or no writing at all.
   */
  async write(record: RunRecord, care: 'durable' | 'quick' = 'quick'): Promise<void> {
    try {
      await this.#write(record, care)
    } catch (error) {
      if (!isDiskFull(error)) throw explain(error)
      try {
        rmSync(this.#reserve, { force: true })
        await this.#write(record, care)
      } catch (again) {
        throw explain(again)
      }
    }
  }

  async #write(record: RunRecord, care: 'durable' | 'quick'): Promise<void> {
    const directory = this.directory(record.flowRunId)
    const fresh = join(directory, `record.${++this.#serial}.new`)
    const text = `${JSON.stringify(record)}\n`
    try {
      if (care === 'quick') {
        const file = openSync(fresh, 'w', 0o600)
        try {
          writeSync(file, text)
        } finally {
          closeSync(file)
        }
      } else {
        await writeDurably(fresh, text)
      }
      renameSync(fresh, join(directory, 'record.json'))
    } catch (error) {
      rmSync(fresh, { force: true })
      throw error
    }
    if (care === 'durable') await syncDirectory(directory)
  }

  /** The run is over for us: its folder leaves `runs` in one step, and is removed afterwards. Throws JournalError. */
  async forget(flowRunId: string): Promise<void> {
    const gone = join(this.#trash, `${flowRunId}.${process.pid}.${++this.#serial}`)
    try {
      renameSync(this.directory(flowRunId), gone)
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return
      throw explain(error)
    }
    await this.#remove(gone)
  }

  /** Keeps an unreadable record beside the new one, for people to look at. */
  setAside(flowRunId: string): void {
    const file = join(this.directory(flowRunId), 'record.json')
    if (existsSync(file)) renameSync(file, `${file}.unreadable`)
  }

  /** The run is none of ours, but its record was unreadable: the folder leaves the journal, and nobody throws it away. */
  keepAside(flowRunId: string): void {
    const aside = join(this.#state, 'unreadable')
    mkdirSync(aside, { recursive: true, mode: 0o700 })
    renameSync(this.directory(flowRunId), join(aside, `${flowRunId}.${process.pid}.${++this.#serial}`))
  }

  /** True when a record could be written now. Puts the reserve back once there is room for it. */
  hasRoom(): boolean {
    try {
      this.#restoreReserve()
      return true
    } catch (error) {
      if (isHostError(error)) return false
      throw error
    }
  }

  #restoreReserve(): void {
    if (statSync(this.#reserve, { throwIfNoEntry: false })?.size === reserveBytes) return
    try {
      writeFileSync(this.#reserve, Buffer.alloc(reserveBytes, 1), { mode: 0o600 })
    } catch (error) {
      rmSync(this.#reserve, { force: true })
      throw error
    }
  }

  #read(flowRunId: string): FoundRecord {
    try {
      return readRecord(readFileSync(join(this.directory(flowRunId), 'record.json'), 'utf8'))
    } catch (error) {
      return { kind: 'unreadable', reason: error instanceof Error ? error.message : String(error) }
    }
  }

  async #emptyTrash(): Promise<void> {
    for (const name of readdirSync(this.#trash)) await this.#remove(join(this.#trash, name))
  }

  /** What cannot be removed now is tried again at the next start: a container may have left what belongs to another user. */
  async #remove(folder: string): Promise<void> {
    try {
      await removeTree(folder)
    } catch (error) {
      const fields = { folder, reason: describeError(error) }
      this.#logger.warn(fields, 'could not remove the folder of a run that is over; the next start tries again')
    }
  }
}

/** Trouble of the host as a JournalError; anything else is a bug, and stays. */
function explain(error: unknown): unknown {
  return isHostError(error) ? new JournalError(error) : error
}

async function writeDurably(path: string, text: string): Promise<void> {
  const file = await open(path, 'w', 0o600)
  try {
    await file.writeFile(text)
    await file.datasync()
  } finally {
    await file.close()
  }
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
