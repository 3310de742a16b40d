import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { promisify } from 'node:util'

import { readConfig } from '../../src/config/config.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'

const unit = await readFile(new URL('../../config/systemd/rigel.service', import.meta.url), 'utf8')
const entries = new Map<string, string>()
for (const line of unit.split('\n')) {
  const [, name, value] = /^(\w+)=(.*)$/.exec(line) ?? []
  if (name !== undefined && value !== undefined) entries.set(name, value)
}

test('systemd finds nothing to complain about in the unit', needs('systemd'), async () => {
  await using directory = await makeDirectory()
  const file = join(directory.path, 'rigel.service')
  // The program and the user that a test machine lacks stand for those of a real one.
  const local = unit.replace('/usr/local/bin/rigel', process.execPath).replaceAll(/^(User|Group)=.*$/gm, '$1=root')
  await writeFile(file, local)
  const { stdout, stderr } = await promisify(execFile)('systemd-analyze', ['verify', '--man=no', file])
  const complaints = `${stdout}${stderr}`.split('\n').filter(line => line.includes('rigel.service'))
  assert.deepEqual(complaints, [])
})

test('the unit ends the agent alone, and starts it again whatever its end', () => {
  assert.equal(entries.get('KillMode'), 'process')
  assert.equal(entries.get('OOMPolicy'), 'continue')
  assert.equal(entries.get('Restart'), 'always')
  assert.equal(entries.get('RestartPreventExitStatus'), '2')
  assert.equal(entries.get('StartLimitIntervalSec'), '0')
  assert.equal(entries.get('NotifyAccess'), 'all')
})

test('the unit waits longer for the end than the agent takes by its default settings', () => {
  const { agent } = readConfig({ env: {}, isolatedHome: '/nowhere' })
  const lastReportsSeconds = 10
  assert.ok(Number(entries.get('TimeoutStopSec')) > agent.drainSeconds + agent.cancelGraceSeconds + lastReportsSeconds)
})

test('nothing in the unit takes from living runs what they need', () => {
  for (const name of [
    'PrivateTmp',
    'RuntimeDirectory',
    'DynamicUser',
    'ProtectHome',
    'NoNewPrivileges',
    'PrivateUsers',
  ]) {
    assert.equal(entries.has(name), false, name)
  }
})
