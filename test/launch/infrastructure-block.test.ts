import assert from 'node:assert/strict'
import test from 'node:test'

import * as fc from 'fast-check'

import { LaunchError } from '../../src/launch/errors.ts'
import { deploymentOverrides, readInfrastructureBlock } from '../../src/launch/infrastructure-block.ts'
import type { BlockDocument } from '../../src/prefect/types.ts'

function makeBlock(data: Record<string, unknown>, slug = 'process'): BlockDocument {
  return {
    id: '11111111-1111-4111-8111-111111111111',
    name: 'base',
    is_anonymous: false,
    data,
    block_type_id: null,
    block_schema_id: null,
    block_type: { name: slug, slug },
    block_schema: { block_type: { slug } },
  }
}

test('a deployment without a block gets a process with defaults, and says which overrides had no effect', () => {
  assert.deepEqual(readInfrastructureBlock(undefined, { 'env.A': '1' }), {
    type: 'process',
    settings: {},
    env: {},
    labels: {},
    name: undefined,
    command: undefined,
    ignoredOverrides: ['env.A'],
  })
})

test('the type is the slug of the block schema', () => {
  const document = { ...makeBlock({}, 'docker-container'), block_type: { name: 'x', slug: 'other' } }
  assert.equal(readInfrastructureBlock(document, {}).type, 'docker-container')
  assert.throws(() => readInfrastructureBlock({ ...document, block_schema: null, block_type: null }, {}), /block type/)
})

const overridden: [what: string, data: Record<string, unknown>, overrides: Record<string, unknown>, want: unknown][] = [
  ['a plain key is set', { image: 'a' }, { image: 'b' }, { image: 'b' }],
  ['a key that the block lacks is added', {}, { image: 'b' }, { image: 'b' }],
  ['a dotted key sets one variable', { env: { A: '1' } }, { 'env.B': '2' }, { env: { A: '1', B: '2' } }],
  ['an object replaces, without merging', { env: { A: '1' } }, { env: { B: '2' } }, { env: { B: '2' } }],
  ['a nested block is reached', { r: { url: 'x', user: 'u' } }, { 'r.user': 'v' }, { r: { url: 'x', user: 'v' } }],
  ['overrides apply in their order', { env: {} }, { env: { A: '1' }, 'env.A': '2' }, { env: { A: '2' } }],
  ['nothing is converted', {}, { stream_output: 'true' }, { stream_output: 'true' }],
]

for (const [what, data, overrides, want] of overridden) {
  test(`overrides: ${what}`, () => {
    const before = structuredClone(data)
    assert.deepEqual(readInfrastructureBlock(makeBlock(data), overrides).settings, want)
    assert.deepEqual(data, before, 'the document that was read is left as it was')
  })
}

const refused: [what: string, data: Record<string, unknown>, overrides: Record<string, unknown>, want: RegExp][] = [
  ['a missing part of a dotted key', { env: {} }, { 'job.metadata.name': 'x' }, /"job" is not an object in it/],
  ['a part that is a text', { env: { A: '1' } }, { 'env.A.B': 'x' }, /"env\.A" is not an object/],
  ['an index into a list', { customizations: [{}] }, { 'customizations.0': {} }, /"customizations" is not an object/],
  ['a command that is one text', {}, { command: 'python secret.py' }, /list of words/],
  ['another type', { type: 'process' }, { type: 'docker-container' }, /cannot change the block's type/],
  ['a variable that is an object', { env: {} }, { 'env.A': {} }, /"env\.A" .* must be a text or null/],
  ['a label that is null', {}, { labels: { a: null } }, /"labels\.a" .* must be a text/],
  ['an env that is a list', {}, { env: ['A=1'] }, /"env" .* must be an object/],
  ['a command with a null', {}, { command: ['a', null] }, /"command\[1\]"/],
  ['a name that is a number', {}, { name: 7 }, /"name"/],
]

for (const [what, data, overrides, want] of refused) {
  test(`a block is refused with a sentence: ${what}`, () => {
    assert.throws(
      () => readInfrastructureBlock(makeBlock(data), overrides),
      (error: unknown) => {
        assert.ok(error instanceof LaunchError)
        assert.match(error.message, want)
        assert.doesNotMatch(error.message, /secret/, 'values may be secret')
        return true
      },
    )
  })
}

test('numbers and booleans in texts are written as Python writes them, and null unsets', () => {
  const block = readInfrastructureBlock(
    makeBlock({ env: { A: 1, B: true, C: null, D: 'x' }, labels: { n: 2 }, command: ['sleep', 1] }),
    {},
  )
  assert.deepEqual(block.env, { A: '1', B: 'True', C: null, D: 'x' })
  assert.deepEqual(block.labels, { n: '2' })
  assert.deepEqual(block.command, ['sleep', '1'])
})

test('an empty command or name counts as none', () => {
  const block = readInfrastructureBlock(makeBlock({ command: [], name: '' }), {})
  assert.equal(block.command, undefined)
  assert.equal(block.name, undefined)
})

test('overrides never touch a prototype, whatever their keys', () => {
  const part = fc.constantFrom('__proto__', 'constructor', 'prototype', 'env', 'toString', 'polluted', '')
  const key = fc.array(part, { minLength: 1, maxLength: 4 }).map(parts => parts.join('.'))
  const overrides = fc.array(fc.tuple(key, fc.oneof(fc.string(), fc.constant({ polluted: 'yes' }))), { maxLength: 6 })
  fc.assert(
    fc.property(overrides, entries => {
      try {
        readInfrastructureBlock(makeBlock({ env: {} }), Object.fromEntries(entries))
      } catch (error) {
        assert.ok(error instanceof LaunchError)
      }
      assert.equal(Reflect.get({}, 'polluted'), undefined)
      assert.equal(Reflect.get(Object, 'polluted'), undefined)
      assert.equal(Object.getPrototypeOf({}), Object.prototype)
    }),
  )
})

test('a variable called __proto__ becomes an ordinary variable', () => {
  const { env } = readInfrastructureBlock(makeBlock({ env: {} }), { 'env.__proto__': 'x' })
  assert.deepEqual(Object.entries(env), [['__proto__', 'x']])
})

test('overrides are read under their old name first, then under the new one', () => {
  assert.deepEqual(deploymentOverrides({ infra_overrides: { a: 1 }, job_variables: { b: 1 } }), { a: 1 })
  assert.deepEqual(deploymentOverrides({ infra_overrides: null, job_variables: { b: 1 } }), { b: 1 })
  assert.deepEqual(deploymentOverrides({ infra_overrides: null, job_variables: null }), {})
})
