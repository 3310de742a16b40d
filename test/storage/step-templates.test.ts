import assert from 'node:assert/strict'
import test from 'node:test'
import { fillInputs, type StepValues } from '../../src/storage/step-templates.ts'

const values: StepValues = {
  outputs: { directory: 'repo', clone: { directory: 'repo', list: [{ key: 'deep' }] }, bucket: 'b' },
  environment: name => ({ STAGE: 'prod', BRANCH: 'main' })[name],
  readers: {
    block: async (slug, name) =>
      new Map<string, Record<string, unknown>>(
        Object.entries({
          'secret/token': { value: 'hush' },
          'json/settings': { value: { key: { inner: 'v' }, list: [{ at: 'x' }, 1] } },
          'github-credentials/me': { token: 'hush', username: null },
          'string/from-env': { value: '{{ STAGE }}-{{ $BRANCH }}' },
        }),
      ).get(`${slug}/${name}`),
    blockById: async id => (id === 'known' ? { token: 'by id' } : undefined),
    variable: async name => ({ bucket: 'flows', number: 3 })[name],
  },
}

// Expected values are those of Prefect 2.20.25's utilities/templating.py on the same inputs.
for (const [what, input, expected] of [
  ['a text without placeholders', 'plain {{ not closed', 'plain {{ not closed'],
  ['what is no text', [1, true, null], [1, true, null]],
  ['an output of an earlier step', '{{ directory }}/flows', 'repo/flows'],
  ['an output by the id of its step', '{{clone.directory}}', 'repo'],
  ['a deep part of an output', '{{ clone.list[0].key }}', 'deep'],
  ['an output that is not there, with text around it', 'a{{ nothing }}b', 'ab'],
  ['an output that is not there, in a list', ['a', '{{ nothing }}'], ['a']],
  ['the environment', '{{ $STAGE }}', 'prod'],
  ['an environment variable that is not set', '{{ $NOTHING }}', ''],
  ['the value of a system block', '{{ prefect.blocks.secret.token }}', 'hush'],
  ['a system block by its field', '{{ prefect.blocks.secret.token.value }}', 'hush'],
  ['a field of a block', '{{ prefect.blocks.github-credentials.me.token }}', 'hush'],
  ['a whole block', '{{ prefect.blocks.github-credentials.me }}', { token: 'hush', username: null }],
  ['a key in the value of a block', '{{ prefect.blocks.json.settings.value.key.inner }}', 'v'],
  ['an item in the value of a block', '{{ prefect.blocks.json.settings.list[0].at }}', 'x'],
  ['a reference to a block', { $ref: { block_document_id: 'known' } }, { token: 'by id' }],
  ['a variable', '{{ prefect.variables.bucket }}', 'flows'],
  ['variables within text', 's3://{{ prefect.variables.bucket }}/{{ prefect.variables.number }}', 's3://flows/3'],
  ['a variable that is not there', '{{ prefect.variables.nothing }}', ''],
  ['text of a block that names variables of the environment', '{{ prefect.blocks.string.from-env }}', 'prod-main'],
] as const) {
  test(`${what} is filled as Prefect fills it`, async () => {
    assert.deepEqual(await fillInputs({ input }, values), { input: expected })
  })
}

test('an input that is only an output that is not there is left out', async () => {
  assert.deepEqual(await fillInputs({ a: '{{ nothing }}', b: { c: '{{ nothing }}' } }, values), { b: {} })
})

for (const [input, message] of [
  ['x {{ prefect.blocks.secret.token }}', /must stand alone/],
  ['{{ prefect.blocks.secret.nobody }}', /no block "secret\/nobody"/],
  ['{{ prefect.blocks.github-credentials.me.nothing }}', /no field "nothing" in block "github-credentials\/me"/],
  [{ $ref: { block_document_id: 'unknown' } }, /no block unknown/],
] as const) {
  test(`${JSON.stringify(input)} is refused with its reason`, async () => {
    await assert.rejects(fillInputs({ input }, values), { name: 'StorageError', message })
  })
}
