// Ships what a run writes: from its output file to the sink, in whole lines, from where the last life of the agent stopped.
//
// The position on disk is the start of the first line that the sink has not yet taken. Nothing is carried over in memory:
// an unfinished line is read again when there is more of it, which also puts split UTF-8 characters together.
// The file has a cap. What is shipped is emptied; what cannot be shipped in time is cut, and both are said in the stream.

import { closeSync, existsSync, fstatSync, ftruncateSync, openSync, readSync, statSync, writeFileSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { errorCode, isHostError } from '../errors.ts'
import type { OutputSink } from './infrastructure.ts'
import { LONGEST_LINE, splitLines } from './process-lines.ts'
import { inSubmission, readText } from './process-record.ts'

/** One for all runs, for reading is synchronous and lines are copied out of it. */
const window = Buffer.alloc(LONGEST_LINE)
/** What one look ships at most, so that one noisy run does not keep the others waiting. */
const WINDOWS_PER_LOOK = 32
/** Enough for the last lines, kept when the file is emptied. */
const KEPT_BYTES = 8 * 1024
/** Reads at most this much of the file's end for the last lines. */
const TAIL_BYTES = 32 * 1024
const TAIL_LINES = 20
const TAIL_LINE_LENGTH = 1000

export interface OutputOptions {
  /** The submission's folder. */
  readonly folder: string
  /** Bytes that the file may hold before it is emptied. */
  readonly capBytes: number
  /** False: nothing goes to the sink, the file is only kept in bounds. */
  readonly isStreamed: boolean
  /** This life of the agent, so that the caretaker of an earlier one leaves the file alone. */
  readonly keeper: string
}

export class Output {
  readonly #options: OutputOptions
  #position: number
  #seenSize = -1
  #wasCut: boolean

  constructor(options: OutputOptions) {
    this.#options = options
    const { position, keeper, isCut } = readPosition(options.folder)
    this.#position = position
    this.#wasCut = isCut
    if (keeper !== options.keeper || isCut) this.#moveTo(position)
  }

  /**
   * Ships what is new. With `atEnd` also an unfinished last line, and all of it however much that is; but not what a process
   * that was left behind goes on to write.
   */
  async ship(sink: OutputSink, atEnd: boolean): Promise<void> {
    const size = this.#size()
    if (size === this.#seenSize && !atEnd) return
    if (size < this.#position) this.#moveTo(0) // Cut by somebody else.
    if (this.#options.isStreamed) {
      if (this.#wasCut)
        await sink(['[rigel] output was cut here: it reached its cap while no agent was there to ship it'])
      this.#wasCut = false
    }
    const isAll = !this.#options.isStreamed || (await this.#shipLines(sink, atEnd ? size : undefined))
    // As it was before the reading: what has been written since is new the next time, even if nothing more comes.
    this.#seenSize = isAll ? size : -1
    if (!atEnd || this.#isOutgrown(size)) await this.#keepInBounds(sink)
  }

  /** The last lines, oldest first: at most 20, each cut at 1000 characters. */
  readTail(): readonly string[] {
    const { folder } = this.#options
    const lines = lastLines(readEnd(inSubmission.output(folder), TAIL_BYTES))
    const earlier = lines.length < TAIL_LINES ? lastLines(readText(inSubmission.earlier(folder)) ?? '') : []
    return [...earlier, ...lines].slice(-TAIL_LINES)
  }

  /**
   * Gives false when one look is not enough for what is there. With `end` the look ends there instead, also within a line.
   * Timers and other runs have their turn between two windows.
   */
  async #shipLines(sink: OutputSink, end: number | undefined): Promise<boolean> {
    const most = end === undefined ? WINDOWS_PER_LOOK : Infinity
    for (let windows = 0; windows < most; windows += 1) {
      if (windows > 0) await setImmediate()
      if (end !== undefined && this.#isOutgrown(end)) return true
      const room = end === undefined ? Infinity : Math.max(0, end - this.#position)
      const length = this.#read(Math.min(window.length, room))
      const { lines, consumed } = splitLines(
        window.subarray(0, length),
        length === room || (end !== undefined && length < window.length),
      )
      if (consumed === 0) return true
      await sink(lines)
      this.#moveTo(this.#position + consumed)
    }
    return false
  }

  /** Somebody goes on writing when the run has ended, and faster than it is shipped. */
  #isOutgrown(end: number): boolean {
    return this.#size() - end >= this.#options.capBytes
  }

  /** Fills the window from the position on; gives the number of bytes. */
  #read(most: number): number {
    return withFile(inSubmission.output(this.#options.folder), 'r', 0, file =>
      readSync(file, window, 0, most, this.#position),
    )
  }

  /** Empties a file that has reached the cap: of what is shipped, or, when more than that waits, of all. */
  async #keepInBounds(sink: OutputSink): Promise<void> {
    const { folder, capBytes, isStreamed } = this.#options
    const size = this.#size()
    if (size < capBytes) return
    const waiting = size - this.#position
    if (isStreamed && waiting > LONGEST_LINE && waiting < capBytes) return
    if (isStreamed && waiting <= LONGEST_LINE) await this.#shipLines(sink, size)
    const cut = this.#empty()
    this.#seenSize = -1
    if (!isStreamed) return
    const what =
      cut > 0 ? `${cut} bytes were written faster than they could be shipped and are cut` : 'nothing known is lost'
    await sink([`[rigel] output file in ${folder} reached its cap of ${capBytes} bytes and was emptied; ${what}`])
  }

  /** Gives the number of bytes that were not shipped. Bytes written between the two system calls are lost as well. */
  #empty(): number {
    const { folder } = this.#options
    const path = inSubmission.output(folder)
    keepEarlier(folder)
    const cut = withFile(path, 'r+', 0, file => {
      const unshipped = fstatSync(file).size - this.#position
      ftruncateSync(file, 0)
      return unshipped
    })
    this.#moveTo(0)
    return Math.max(0, cut)
  }

  #moveTo(position: number): void {
    this.#position = position
    const { folder, keeper } = this.#options
    try {
      writePosition(folder, position, keeper)
    } catch (error) {
      // A full disk, or one that cannot be written: after a restart of the agent some lines come twice, which is better than losing the run.
      if (!isGone(error) && !isHostError(error)) throw error
    }
  }

  #size(): number {
    return statSync(inSubmission.output(this.#options.folder), { throwIfNoEntry: false })?.size ?? 0
  }
}

/**
 * `<position> <keeper>`, and `cut` when a caretaker has emptied the file. Laid out before the start, and of constant width,
 * so that a full disk does not keep it from being written.
 */
export function writePosition(folder: string, position: number, keeper: string): void {
  writeFileSync(inSubmission.position(folder), `${String(position).padStart(16)} ${keeper}    \n`, {
    mode: 0o600,
    flag: existsSync(inSubmission.position(folder)) ? 'r+' : 'w',
  })
}

function readPosition(folder: string) {
  const [position, keeper, cut] = (readText(inSubmission.position(folder)) ?? '').trim().split(/\s+/)
  return { position: Number(position) || 0, keeper, isCut: cut === 'cut' }
}

function keepEarlier(folder: string): void {
  try {
    writeFileSync(inSubmission.earlier(folder), readEnd(inSubmission.output(folder), KEPT_BYTES), { mode: 0o600 })
  } catch (error) {
    if (!isGone(error) && !isHostError(error)) throw error // They would only have explained a crash better.
  }
}

function lastLines(text: string): readonly string[] {
  const lines = text.split('\n').map(line => line.replace(/\r$/, ''))
  if (lines.at(-1) === '') lines.pop()
  return lines
    .slice(-TAIL_LINES)
    .map(line => (line.length > TAIL_LINE_LENGTH ? `${line.slice(0, TAIL_LINE_LENGTH)}…` : line))
}

/** The last `bytes` of a file from a line's start on, if there is one; empty when there is no file. */
function readEnd(path: string, bytes: number): string {
  return withFile(path, 'r', '', file => {
    const { size } = fstatSync(file)
    const end = Buffer.alloc(Math.min(bytes, size))
    readSync(file, end, 0, end.length, size - end.length)
    const text = end.toString('utf8')
    return size > end.length && text.includes('\n') ? text.slice(text.indexOf('\n') + 1) : text
  })
}

function withFile<T>(path: string, flags: string, whenGone: T, work: (file: number) => T): T {
  let file: number
  try {
    file = openSync(path, flags)
  } catch (error) {
    if (isGone(error)) return whenGone
    throw error
  }
  try {
    return work(file)
  } finally {
    closeSync(file)
  }
}

function isGone(error: unknown): boolean {
  return errorCode(error) === 'ENOENT'
}
