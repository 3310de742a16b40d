import assert from 'node:assert/strict'
import test from 'node:test'
import { CsrfTokens } from '../../src/prefect/csrf.ts'
import { never } from './support.ts'

/** Tokens that are named in the order in which they were asked for, each valid for a minute of the time given. */
function makeTokens(expiration = (asked: number) => new Date(asked * 60_000).toISOString()) {
  let asked = 0
  const tokens = new CsrfTokens(async () => {
    asked++
    return { token: `token ${asked}`, expiration: expiration(asked) }
  })
  return { tokens, asked: () => asked }
}

test('a token is used until it expires, then a new one is asked for', async () => {
  const { tokens } = makeTokens()
  const at = async (now: number) => (await tokens.headers(now, never))['prefect-csrf-token']
  assert.deepEqual(
    [await at(0), await at(59_999), await at(60_000), await at(119_000)],
    ['token 1', 'token 1', 'token 2', 'token 2'],
  )
})

test('an expiration that cannot be read keeps the token until the server refuses it', async () => {
  const { tokens } = makeTokens(() => 'soon')
  assert.equal((await tokens.headers(0, never))['prefect-csrf-token'], 'token 1')
  assert.equal((await tokens.headers(1e15, never))['prefect-csrf-token'], 'token 1')
  tokens.forget()
  assert.equal((await tokens.headers(0, never))['prefect-csrf-token'], 'token 2')
})

test('many callers at once ask once', async () => {
  const { tokens, asked } = makeTokens()
  await Promise.all(Array.from({ length: 20 }, () => tokens.headers(0, never)))
  assert.equal(asked(), 1)
})

test('a caller who waits for another’s question hears an abort at once', async () => {
  const answer = Promise.withResolvers<undefined>()
  const tokens = new CsrfTokens(() => answer.promise)
  const asking = tokens.headers(0, never)
  const stop = new AbortController()
  const waiting = tokens.headers(0, stop.signal)
  stop.abort(new Error('stopping'))
  await assert.rejects(waiting, /stopping/)
  answer.resolve(undefined)
  assert.deepEqual(await asking, {})
})

test('a caller who goes away while asking takes nobody with it', async () => {
  const first = new AbortController()
  let asked = 0
  const tokens = new CsrfTokens(async (_clientId, signal) => {
    if (++asked > 1) return { token: 'second', expiration: '2100-01-01T00:00:00Z' }
    return await new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('gone'))))
  })
  const gone = tokens.headers(0, first.signal)
  const others = [tokens.headers(0, never), tokens.headers(0, never)]
  first.abort()
  await assert.rejects(gone, /gone/)
  const headers = await Promise.all(others)
  assert.deepEqual(
    headers.map(each => each['prefect-csrf-token']),
    ['second', 'second'],
  )
  assert.equal(asked, 2)
})
