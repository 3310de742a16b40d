import assert from 'node:assert/strict'
import test from 'node:test'
import * as fc from 'fast-check'
import { cutText } from '../src/cut-text.ts'

test('a cut text is a beginning of at most that length, and no character is cut in two', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.integer({ min: 2, max: 20 }), (text, length) => {
      const cut = cutText(text, length)
      return (
        text.startsWith(cut) &&
        cut.length <= length &&
        cut.length >= Math.min(text.length, length - 1) &&
        cut.isWellFormed()
      )
    }),
  )
  assert.equal(cutText('ab🙂', 3), 'ab')
  assert.equal(cutText('ab🙂', 4), 'ab🙂')
})
