// What decides whether a test runs, is skipped or fails for the lack of something.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { promisify } from 'node:util'
import { makeDirectory } from './directory.ts'

const run = promisify(execFile)

/** Runs a test file with one test that needs Prefect 2, on a machine that has it or not. */
async function runFile(options: { readonly directory: string; readonly env: Readonly<Record<string, string>> }) {
  const file = join(options.directory, 'one.test.mjs')
  const requires = new URL('./requires.ts', import.meta.url).href
  await writeFile(
    file,
    `import test from 'node:test'
     import { needs } from ${JSON.stringify(requires)}
     test('speaks to Prefect', needs('prefect2'), () => {})`,
  )
  const env = { PATH: process.env.PATH, RIGEL_PREFECT: options.directory, ...options.env }
  const command = ['--test', '--test-reporter=tap', file]
  const settled = await run(process.execPath, command, { env }).then(
    ({ stdout }) => ({ ok: true, stdout }),
    (error: Error & { stdout?: string }) => ({ ok: false, stdout: error.stdout ?? '' }),
  )
  return settled
}

test('a test whose requirement is missing is skipped and says what it needs', async () => {
  await using directory = await makeDirectory()
  const ledger = join(directory.path, 'ledger')
  const { ok, stdout } = await runFile({ directory: directory.path, env: { RIGEL_TEST_LEDGER: ledger } })
  assert.ok(ok)
  assert.match(stdout, /# SKIP needs prefect2: Prefect 2 in .*p2\/bin\/prefect \(scripts\/prefect-environments/)
  assert.match(await readFile(ledger, 'utf8'), /^prefect2\tskipped\tneeds Prefect 2 in .*\n$/)
})

test('a missing requirement that RIGEL_TEST_REQUIRE names fails the file', async () => {
  await using directory = await makeDirectory()
  const { ok, stdout } = await runFile({ directory: directory.path, env: { RIGEL_TEST_REQUIRE: 'root,prefect2' } })
  assert.equal(ok, false)
  assert.match(stdout, /RIGEL_TEST_REQUIRE asks for prefect2, but this machine lacks Prefect 2 in /)
})

test('a name in RIGEL_TEST_REQUIRE that is written wrong fails the file instead of asking for nothing', async () => {
  await using directory = await makeDirectory()
  const { ok, stdout } = await runFile({ directory: directory.path, env: { RIGEL_TEST_REQUIRE: 'prefekt2' } })
  assert.equal(ok, false)
  assert.match(stdout, /RIGEL_TEST_REQUIRE names prefekt2, which no test knows/)
})
