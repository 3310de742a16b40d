import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import * as v from 'valibot'
import { commandPage, renewPage } from '../../scripts/command-table.ts'
import { commands } from '../../src/commands/commands.ts'
import { allSettings } from '../../src/config/settings.ts'
import { buildSample } from '../config/sample.ts'
import { makeDirectory } from '../support/directory.ts'
import { runCli } from './support.ts'

test('docs/command-line.md lists every command with its options (node scripts/command-table.ts)', () => {
  const page = readFileSync(commandPage, 'utf8')
  assert.equal(page, renewPage(page))
})

test('every command explains itself', async () => {
  for (const { path, doc, options = [] } of commands) {
    const { code, stdout } = await runCli([...path.split(' '), '--help'])
    assert.equal(code, 0, path)
    const words = stdout.replace(/\s+/g, ' ')
    assert.ok(words.includes(doc), `${path}: ${doc}`)
    for (const option of options) assert.ok(words.includes(option.flags), `${path} ${option.flags}`)
  }
})

test('every setting can be given as a flag', async () => {
  await using directory = await makeDirectory()
  const secret = join(directory.path, 'secret')
  await writeFile(secret, '{"fits": "texts and headers"}')
  const flags = allSettings.flatMap(setting => {
    if (setting.flag === '--debug') return [setting.flag]
    if (setting.flag === '--profile') return [setting.flag, 'local']
    return [setting.flag, setting.kind.isSecret ? secret : buildSample(setting.kind.expected)]
  })
  const { stdout, stderr } = await runCli(['config', 'view', '--output', 'json', ...flags])
  const shown = v.parse(v.record(v.string(), v.object({ source: v.string() })), JSON.parse(stdout || '{}'))
  for (const { key, flag } of allSettings) assert.equal(shown[key]?.source, `flag ${flag}`, stderr)
})
