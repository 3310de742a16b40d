import assert from 'node:assert/strict'
import test from 'node:test'
import { getHeapStatistics } from 'node:v8'
import { Scope } from '../../src/async/scope.ts'
import { collectWhenIdle } from '../../src/commands/idle-heap.ts'
import { until } from '../support/until.ts'

const mebibyte = 1024 * 1024

test('what a burst has left in memory is given back once the program is idle, though some of it lives on', async () => {
  const survivors = makeBurst()
  const before = emptyBytes()
  await using scope = new Scope()
  scope.spawn(signal => collectWhenIdle(50, signal))
  // An ordinary collection frees the objects and keeps their pages.
  const options = { what: `less than ${before} bytes of heap for nothing` }
  await until(() => emptyBytes() < 5 * mebibyte, options)
  assert.equal(survivors.length, 1000)
})

/** Of the heap's pages, what no object needs. */
function emptyBytes(): number {
  const { total_heap_size, used_heap_size } = getHeapStatistics()
  return total_heap_size - used_heap_size
}

/** Some 40 MiB, of which every two hundredth object stays. */
function makeBurst(): readonly unknown[] {
  const all = Array.from({ length: 200_000 }, (_, index) => ({ text: `run ${index}`, list: [index, { index }] }))
  return all.filter((_, index) => index % 200 === 0)
}
