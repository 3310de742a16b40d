import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { configurationPage, renewPage } from '../../scripts/configuration-table.ts'
import { readConfig } from '../../src/config/config.ts'
import { allSettings } from '../../src/config/settings.ts'
import { buildSample } from './sample.ts'

test('every setting has a default, a flag, an environment name and a sentence that documents it', () => {
  const { sources } = readConfig({ env: {} })
  const page = readFileSync(configurationPage, 'utf8')
  for (const setting of allSettings) {
    assert.equal(sources[setting.key], 'default', `${setting.key} has no default`)
    assert.match(setting.flag, /^--[a-z][a-z-]+$/, setting.key)
    assert.ok(setting.env.length > 0 && setting.env.every(name => /^[A-Z_]+$/.test(name)), setting.key)
    assert.match(setting.doc, /^.{10,}\.$/, `${setting.key} is not documented`)
    assert.ok(page.includes(`\`${setting.env[0]}\``), `${setting.key} is not in docs/configuration.md`)
  }
})

test('no two settings share a key, a flag or an environment name', () => {
  for (const names of [
    allSettings.map(setting => setting.key),
    allSettings.map(setting => setting.flag),
    allSettings.flatMap(setting => setting.env),
  ]) {
    assert.deepEqual([...new Set(names)], names)
  }
})

test('every environment name of a setting reaches it', () => {
  for (const setting of allSettings) {
    const text = buildSample(setting.kind.expected)
    for (const name of setting.env) {
      const { sources } = readConfig({ env: { HOME: '/nowhere', [name]: text } })
      assert.equal(sources[setting.key], `environment ${name}`)
    }
  }
})

test('the table in docs/configuration.md is current (node scripts/configuration-table.ts)', () => {
  const page = readFileSync(configurationPage, 'utf8')
  assert.equal(page, renewPage(page))
})
