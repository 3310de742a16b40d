// The line that moves while something is fetched or uploaded, at a terminal only.

import { sleep } from '../async/sleep.ts'
import type { Meter } from '../storage/context.ts'
import type { Output } from './context.ts'

const everyMs = 100
const barWidth = 24
/** A shorter bar says nothing. */
const leastBarWidth = 8

/** Columns of a terminal that does not say. */
const usualColumns = 80

/** Draws until the signal comes, then takes the line away. Blanks clear it, for not every terminal knows the code that would. */
export async function showProgress(stderr: Output, meter: Meter, signal: AbortSignal): Promise<void> {
  if (stderr.isTTY !== true) return
  let drawn = 0
  while (!signal.aborted) {
    const line = drawProgress(meter, (stderr.columns || usualColumns) - 1)
    stderr.write(`\r${line.padEnd(drawn)}`)
    drawn = line.length
    await sleep(everyMs, signal)
  }
  stderr.write(`\r${' '.repeat(drawn)}\r`)
}

/** With a bar once the source has said how many files there are; never longer than `columns`, or it would leave lines behind. */
export function drawProgress({ files, bytes, requests, expected }: Meter, columns: number): string {
  const moved = `${formatBytes(bytes)}, ${requests} requests`
  if (!expected) return `${files} files, ${moved}`.slice(0, columns)
  const count = `${files}/${expected} files`
  const width = Math.min(barWidth, columns - `[] ${count}, ${moved}`.length)
  if (width < leastBarWidth) return `${count}, ${moved}`.slice(0, columns)
  const filled = Math.min(width, Math.floor((files / expected) * width))
  return `[${'='.repeat(filled).padEnd(width)}] ${count}, ${moved}`
}

export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB']
  let value = bytes
  let at = 0
  for (; value >= 1024 && at < units.length - 1; at++) value /= 1024
  return `${at === 0 ? value : value.toFixed(1)} ${units[at]}`
}
