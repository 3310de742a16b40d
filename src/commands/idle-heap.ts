// Gives back what a burst has left in memory, once the agent is idle again: docs/performance.md, section "Memory".

import { performance } from 'node:perf_hooks'
import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { sleep } from '../async/sleep.ts'

/** Below this share of the last interval nobody is kept waiting by a collection of 20 to 50 ms. */
const idleShare = 0.02
/** Less than this is not worth it; an idle agent's polls make some 0.2 MiB a minute. */
const worthwhileBytes = 4 * 1024 * 1024

/** V8 collects when it needs room, so what a burst has left would stay as long as nothing follows. Ends with the signal. */
export async function collectWhenIdle(lookEveryMs: number, signal: AbortSignal): Promise<void> {
  let collect: (() => void) | undefined
  let smallest = 0
  let before = performance.eventLoopUtilization()
  while (!signal.aborted) {
    await sleep(lookEveryMs, signal)
    const now = performance.eventLoopUtilization()
    const { utilization } = performance.eventLoopUtilization(now, before)
    before = now
    if (utilization > idleShare || heapBytes() < smallest + worthwhileBytes) continue
    collect ??= findCollector()
    collect()
    smallest = heapBytes()
  }
}

function heapBytes(): number {
  return getHeapStatistics().used_heap_size
}

function findCollector(): () => void {
  setFlagsFromString('--expose-gc')
  // A context made now has it; ours was made before.
  const found: unknown = runInNewContext('gc')
  // An ordinary collection leaves what survives where it is, on as many pages as the burst has needed; this one moves it
  // together and gives the pages back.
  const options = { type: 'major', execution: 'sync', flavor: 'last-resort' }
  return () => {
    if (typeof found === 'function') found(options)
  }
}
