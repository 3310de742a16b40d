import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Context } from '../../src/commands/context.ts'
import { writeLogs } from '../../src/commands/flow-run-logs.ts'
import { cleanText, printTable } from '../../src/commands/output.ts'
import { readConfig } from '../../src/config/config.ts'

function collect(isTTY: boolean) {
  let shown = ''
  const output = {
    isTTY,
    write: (text: string) => {
      shown += text
    },
  }
  const configInput = { env: {} }
  const never = new AbortController().signal
  const signals = { stopping: never, kill: never }
  const context: Context = {
    config: readConfig(configInput),
    configInput,
    signals,
    format: 'table',
    stdout: output,
    stderr: output,
  }
  return { context, shown: () => shown }
}

test('in a pipe a table is plain columns, at a terminal it has lines', async () => {
  const rows = [
    ['a', 1],
    ['longer', null],
  ] as const
  const plain = collect(false)
  await printTable(plain.context, ['name', 'n'], rows)
  assert.equal(plain.shown(), 'NAME    N\na       1\nlonger  -\n')
  const pretty = collect(true)
  await printTable(pretty.context, ['name', 'n'], rows)
  assert.match(pretty.shown(), /│ longer │ - │/)
})

test('what would steer the terminal is taken out of texts of others', async () => {
  assert.equal(cleanText('a\u001b[31mb\u0007\r\n\tc'), 'a[31mb\n\tc')
  const { context, shown } = collect(false)
  await printTable(context, ['name'], [['x\u001b]0;title\u0007\ny']])
  assert.equal(shown(), 'NAME\nx]0;title y\n')
  const line = { name: 'l', level: 50, message: '\u001bc', timestamp: '2026-11-24T04:00:00+00:00' }
  writeLogs(context.stdout, [{ ...line, flow_run_id: null, task_run_id: null }])
  assert.match(shown(), /CRITICAL l \| c\n$/)
})
