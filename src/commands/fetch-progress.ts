// The line that moves while something is fetched or uploaded, at a terminal only.

import { sleep } from '../async/sleep.ts'
import type { Meter } from '../storage/context.ts'
import type { Output } from './context.ts'

const everyMs = 100
const barWidth = 24

/** Draws until the signal comes, then takes the line away. */
export async function showProgress(stderr: Output, meter: Meter, signal: AbortSignal): Promise<void> {
  if (stderr.isTTY !== true) return
  while (!signal.aborted) {
    stderr.write(`\r${drawProgress(meter)}\u001B[K`)
    await sleep(everyMs, signal)
  }
  stderr.write('\r\u001B[K')
}

/** With a bar once the source has said how many files there are. */
export function drawProgress({ files, bytes, requests, expected }: Meter): string {
  const moved = `${formatBytes(bytes)}, ${requests} requests`
  if (!expected) return `${files} files, ${moved}`
  const filled = Math.min(barWidth, Math.floor((files / expected) * barWidth))
  return `[${'='.repeat(filled).padEnd(barWidth)}] ${files}/${expected} files, ${moved}`
}

export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB']
  let value = bytes
  let at = 0
  for (; value >= 1024 && at < units.length - 1; at++) value /= 1024
  return `${at === 0 ? value : value.toFixed(1)} ${units[at]}`
}
