// How far a container's output has been shipped, so that a new life of the agent goes on at the very next line.
//
// A time alone will not do: many messages share one, both streams race, and the pieces of a long line all carry the time
// of its first. So a position is a time and the number of messages that were shipped from then on, in the log's own
// order, which is the same at each reading. The time is moved up once what follows can no longer be older than it.

import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import * as v from 'valibot'
import { errorCode } from '../errors.ts'

const schema = v.object({
  version: v.literal(1),
  /** `seconds.nanoseconds`; messages before it are done with. */
  since: v.string(),
  /** Messages from `since` on that have been shipped. */
  count: v.number(),
  /** The latest time among what was shipped: a later message is never skipped, even if the log was cut short. */
  latest: v.string(),
  /** Half a character that a split line has left for its rest. */
  carry: v.object({ stdout: v.optional(v.string(), ''), stderr: v.optional(v.string(), '') }),
})
export type LogPosition = v.InferOutput<typeof schema>

export const logStart: LogPosition = { version: 1, since: '', count: 0, latest: '', carry: { stdout: '', stderr: '' } }

/** How much later than a message an older one may still come, in milliseconds: the streams' copiers race. */
const settleMs = 10_000

/** Counts messages in the order of the log and gives the position behind the last one. */
export class PositionCounter {
  #active: { since: string; count: number }
  /** Becomes active when everything older has surely come. */
  #next: { since: string; count: number; bornMs: number } | undefined
  #latest: string
  #toSkip: number

  constructor(start: LogPosition) {
    this.#active = { since: start.since, count: 0 }
    this.#latest = start.latest
    this.#toSkip = start.count
  }

  /** False for a message that an earlier life of the agent has shipped. `nowMs` is a monotonic clock. */
  take(time: string, nowMs: number): boolean {
    if (time >= this.#active.since) this.#active.count += 1
    if (this.#next && time >= this.#next.since) this.#next.count += 1
    const isOld = this.#toSkip > 0 && time <= this.#latest
    if (isOld) this.#toSkip -= 1
    else this.#toSkip = 0
    if (time > this.#latest) this.#latest = time
    this.#next ??= { since: justAfter(this.#latest), count: 0, bornMs: nowMs }
    return !isOld
  }

  /** The position behind all that was taken. Only to be called when no line is incomplete. */
  position(nowMs: number): Omit<LogPosition, 'carry'> {
    if (this.#next && nowMs - this.#next.bornMs > settleMs) {
      this.#active = { since: this.#next.since, count: this.#next.count }
      this.#next = undefined
    }
    return { version: 1, ...this.#active, latest: this.#latest }
  }
}

/** Podman tells whole seconds only, but counts `since` in nanoseconds: just after a second without a fraction is the next. */
function justAfter(time: string): string {
  const [seconds = '0', nanoseconds = '0'] = time.split('.')
  if (/^0*$/.test(nanoseconds)) return `${BigInt(seconds) + 1n}.000000000`
  const next = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds) + 1n
  return `${next / 1_000_000_000n}.${String(next % 1_000_000_000n).padStart(9, '0')}`
}

/** The stored position, or the start of the log when there is none or it cannot be read (lines are then seen twice). */
export async function readPosition(path: string): Promise<LogPosition> {
  try {
    return v.parse(schema, JSON.parse(await readFile(path, 'utf8')))
  } catch (error) {
    if (errorCode(error) === 'ENOENT' || error instanceof SyntaxError || error instanceof v.ValiError) return logStart
    throw error
  }
}

export async function writePosition(path: string, position: LogPosition): Promise<void> {
  await writeFile(`${path}.part`, JSON.stringify(position), { mode: 0o600 })
  await rename(`${path}.part`, path)
}

export async function forgetPosition(path: string): Promise<void> {
  await rm(path, { force: true })
}
