import assert from 'node:assert/strict'
import test from 'node:test'
import { inspect } from 'node:util'
import { chooseProxy, type ProxyOptions } from '../src/proxy.ts'

const http = 'http://proxy:3128'
const https = 'http://proxy:3129'
const all = 'http://proxy:1080'

test('an address of a proxy that is no URL is refused without being shown', () => {
  const proxies = { http: 'http://u:secret@[' }
  assert.throws(
    () => chooseProxy(new URL('http://server/'), proxies),
    (error: Error) => /not a URL/.test(error.message) && !inspect(error).includes('secret'),
  )
})

const choices: readonly (readonly [string, ProxyOptions, string | undefined])[] = [
  ['http://server:4200/api', {}, undefined],
  ['http://server:4200/api', { http, https, all }, http],
  ['https://server/api', { http, https, all }, https],
  ['https://server/api', { http, all }, all],
  ['https://server/api', { http }, undefined],
  ['http://server/api', { http: '', all }, all],
  ['http://server/api', { http: 'proxy:3128' }, 'http://proxy:3128'],
]

for (const [url, proxies, expected] of choices) {
  test(`${url} with ${Object.keys(proxies).join(', ') || 'nothing'} set goes through ${expected ?? 'no proxy'}`, () => {
    assert.equal(chooseProxy(new URL(url), proxies), expected)
  })
}

const exceptions: readonly (readonly [string, string, boolean])[] = [
  ['http://server/api', 'server', true],
  ['http://SERVER/api', 'Server', true],
  ['http://server/api', 'other, server', true],
  ['http://server/api', 'other server', true],
  ['http://server/api', '*', true],
  ['http://server/api', 'erver', false],
  ['http://api.example.com', 'example.com', true],
  ['http://api.example.com', '.example.com', true],
  ['http://api.example.com', '*.example.com', true],
  ['http://api.example.com.', 'example.com', true],
  ['http://example.com', 'example.com', true],
  ['http://badexample.com', 'example.com', false],
  ['http://server:4200/api', 'server:4200', true],
  ['http://server:4200/api', 'server:80', false],
  ['https://server/api', 'server:443', true],
  ['http://127.0.0.1:4200', '127.0.0.1', true],
  ['http://10.1.2.3', '10.0.0.0/8', true],
  ['http://11.1.2.3', '10.0.0.0/8', false],
  ['http://10.1.2.3', '10.0.0.0/99', false],
  ['http://1.0.0.1', '0.0.1', false],
  ['http://[::1]:4200', '::1', true],
  ['http://[::1]:4200', '[::1]:4200', true],
  ['http://[fd00::1]', 'fd00::/8', true],
  ['http://server/api', '', false],
  ['http://server/api', ' ,,', false],
]

for (const [url, no, isDirect] of exceptions) {
  test(`NO_PROXY=${no || '(empty)'} ${isDirect ? 'covers' : 'does not cover'} ${url}`, () => {
    assert.equal(chooseProxy(new URL(url), { all, no }), isDirect ? undefined : all)
  })
}
