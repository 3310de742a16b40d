import { constants, PerformanceObserver } from 'node:perf_hooks'
import test from 'node:test'
import { Scope } from '../../src/async/scope.ts'
import { collectWhenIdle } from '../../src/commands/idle-heap.ts'
import { until } from '../support/until.ts'

test('what a burst has left in memory is collected on purpose once the program is idle', async () => {
  let forced = 0
  const observer = new PerformanceObserver(list => {
    for (const entry of list.getEntries()) if ('detail' in entry && isForced(entry.detail)) forced++
  })
  observer.observe({ entryTypes: ['gc'] })
  try {
    await using scope = new Scope()
    scope.spawn(signal => collectWhenIdle(50, signal))
    await until(() => forced > 0, { what: 'a collection that somebody asked for' })
  } finally {
    observer.disconnect()
  }
})

function isForced(detail: unknown): boolean {
  const flags = typeof detail === 'object' && detail !== null && 'flags' in detail ? Number(detail.flags) : 0
  return (flags & constants.NODE_PERFORMANCE_GC_FLAGS_FORCED) !== 0
}
