// How often this host has given a run back since its last launch: <state>/returned/<flow run id>, one number.

import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isHostError } from '../errors.ts'

/** A run that was given back long ago starts counting anew. */
const forgottenMs = 24 * 3600 * 1000

export class Returns {
  readonly #directory: string

  constructor(stateDirectory: string) {
    this.#directory = join(stateDirectory, 'returned')
  }

  /** Makes the folder, and clears away old counts. */
  open(): void {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 })
    for (const name of readdirSync(this.#directory)) {
      const file = join(this.#directory, name)
      if (Date.now() - statSync(file).mtimeMs > forgottenMs) rmSync(file, { force: true })
    }
  }

  count(flowRunId: string): number {
    try {
      return Number.parseInt(readFileSync(join(this.#directory, flowRunId), 'utf8'), 10) || 0
    } catch {
      return 0 // no such file: never
    }
  }

  /** On a disk in trouble the count is not kept: the run is then tried once more than it should be, which harms nobody. */
  note(flowRunId: string): void {
    try {
      writeFileSync(join(this.#directory, flowRunId), `${this.count(flowRunId) + 1}\n`)
    } catch (error) {
      if (!isHostError(error)) throw error
    }
  }

  /** On a disk in trouble an old count stays: it is forgotten a day later. */
  forget(flowRunId: string): void {
    try {
      rmSync(join(this.#directory, flowRunId), { force: true })
    } catch (error) {
      if (!isHostError(error)) throw error
    }
  }
}
