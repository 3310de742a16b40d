import assert from 'node:assert/strict'
import { test } from 'node:test'
import { findNearest } from '../../src/config/nearest.ts'

test('the nearest name is found within the allowed number of edits, whatever the case', () => {
  const known = ['limit', 'linger_seconds', 'name']
  for (const [name, most, nearest] of [
    ['limt', 3, 'limit'],
    ['lmiit', 1, 'limit'],
    ['LIMITS', 1, 'limit'],
    ['linger_second', 1, 'linger_seconds'],
    ['queues', 3, undefined],
    ['nam_', 1, 'name'],
    ['na', 1, undefined],
  ] as const) {
    assert.equal(findNearest(name, known, most), nearest, name)
  }
})
