import assert from 'node:assert/strict'
import test from 'node:test'

import { explainEngineExit } from '../../src/launch/engine-exit.ts'

test('an exit for want of Prefect names the Python and its version', () => {
  const outputTail = ['warning', 'rigel: no Prefect in /opt/my python/bin/python3 (3.11.7)']
  assert.equal(
    explainEngineExit({ statusCode: 78, outputTail }),
    'Python 3.11.7 at /opt/my python/bin/python3 has no Prefect: install it there, or name another Python in RIGEL_PYTHON.',
  )
})

test('any other exit is not explained as a want of Prefect', () => {
  const line = 'rigel: no Prefect in /usr/bin/python3 (3.11.7)'
  assert.equal(explainEngineExit({ statusCode: 1, outputTail: [line] }), undefined)
  assert.equal(explainEngineExit({ statusCode: undefined, outputTail: [line] }), undefined)
  assert.equal(explainEngineExit({ statusCode: 78, outputTail: ['something else'] }), undefined)
})
