// The check that no test file leaves anything behind.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { makeDirectory } from './directory.ts'
import { until } from './until.ts'

/** Runs a test file with the check and gives its exit code and output. */
async function runFile(body: string): Promise<{ readonly code: number; readonly output: string }> {
  await using directory = await makeDirectory()
  const file = join(directory.path, 'one.test.mjs')
  await writeFile(file, body)
  const leaks = new URL('./leaks.ts', import.meta.url).href
  const command = ['--test', '--test-reporter=tap', `--import=${leaks}`, file]
  return await new Promise(resolve => {
    execFile(process.execPath, command, { env: { PATH: process.env.PATH } }, (error, output) => {
      resolve({ code: error ? Number(error.code) : 0, output })
    })
  })
}

test('a test file that leaves a process behind fails, and the process is ended', async () => {
  const { code, output } = await runFile(`
    import { spawn } from 'node:child_process'
    import test from 'node:test'
    test('starts something', () => {
      const child = spawn('sleep', ['60'], { detached: true, stdio: 'ignore' })
      child.unref()
      console.log('pid ' + child.pid)
    })`)
  assert.equal(code, 1)
  assert.match(output, /processes left behind/)
  const pid = Number(/pid (\d+)/.exec(output)?.[1])
  // An orphan that was killed may wait to be collected; its command line is empty then.
  await until(async () => (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')) === '')
})

test('a test file that leaves a server listening fails and says so', async () => {
  const { code, output } = await runFile(`
    import { createServer } from 'node:net'
    import test from 'node:test'
    test('listens', () => { createServer().listen(0, '127.0.0.1') })`)
  assert.equal(code, 1)
  assert.match(output, /left open after the last test: .*TCPServerWrap/)
})

test('a test file that tidies up passes', async () => {
  const { code } = await runFile(`
    import test from 'node:test'
    test('does nothing', () => {})`)
  assert.equal(code, 0)
})
