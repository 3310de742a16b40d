// Positions in a log: where the next life of an agent goes on.

import assert from 'node:assert/strict'
import test from 'node:test'
import { logStart, PositionCounter } from '../../src/infrastructure/log-position.ts'

/** Longer than any older message can still be under way, in milliseconds. */
const settledMs = 11_000

for (const [clock, first, later, since, count] of [
  ['nanoseconds', '100.000000001', '100.500000000', '100.000000002', 1],
  // By its own clock, the engine would send messages of second 100 again from 100.000000001 on.
  ['whole seconds, as Podman does', '100.000000000', '100.000000000', '101.000000000', 0],
] as const) {
  test(`an engine that tells ${clock}: the next life asks for what follows, and skips what was shipped of it`, () => {
    const counter = new PositionCounter(logStart)
    assert.ok(counter.take(first, 0))
    assert.ok(counter.take(later, 1))
    const position = counter.position(settledMs)
    assert.deepEqual([position.since, position.count, position.latest], [since, count, later])
  })
}
