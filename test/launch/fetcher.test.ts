import assert from 'node:assert/strict'
import test from 'node:test'
import { LaunchError } from '../../src/launch/errors.ts'
import { readAskedFetcher } from '../../src/launch/fetcher.ts'

test("who fetches is asked for by the job variables, else by the block's env", () => {
  assert.equal(readAskedFetcher({ env: {} }, {}), undefined)
  assert.equal(readAskedFetcher({ env: { RIGEL_FETCH: '' } }, { fetch: null }), undefined)
  assert.equal(readAskedFetcher({ env: { RIGEL_FETCH: 'agent' } }, {}), 'agent')
  assert.equal(readAskedFetcher({ env: { RIGEL_FETCH: 'agent' } }, { fetch: 'infrastructure' }), 'infrastructure')
})

test('another fetcher is refused', () => {
  for (const fetch of ['nobody', 1, true, ['agent']]) {
    assert.throws(() => readAskedFetcher({ env: {} }, { fetch }), LaunchError)
  }
})
