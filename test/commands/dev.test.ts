import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { makeDirectory } from '../support/directory.ts'
import { runCli } from './support.ts'

/** Runs `rigel dev --once` on one plain command beside its code, as a person would; the home directory is empty. */
async function tryOut(command: string, ...more: string[]) {
  await using directory = await makeDirectory()
  await using home = await makeDirectory()
  const file = join(directory.path, 'deployment.yaml')
  await writeFile(file, `flow: trial\nname: plain\nqueue: trial\nentrypoint: ${JSON.stringify(command)}\n`)
  const env = {
    HOME: home.path,
    PREFECT_API_URL: 'http://127.0.0.1:9/api',
    PREFECT_API_KEY: 's3cret',
    PREFECT_PROFILE: 'nowhere',
  }
  return await runCli(['dev', '--once', '--port', '0', ...more, file], { cwd: directory.path, env })
}

test("a plain command is tried out with its output, far from the user's own Prefect", async () => {
  const { code, stdout, stderr } = await tryOut("sh -c 'echo out-$((40 + 2)) key-$PREFECT_API_KEY'")
  assert.equal(code, 0, stdout + stderr)
  assert.match(stdout, /\| out-42 key-$/m)
  assert.match(stdout, /^Completed {2}trial\/plain/m)
})

test('a command that fails gives exit code 1', async () => {
  const { code, stdout } = await tryOut("sh -c 'exit 3'")
  assert.equal(code, 1)
  assert.match(stdout, /^Failed {2}trial\/plain/m)
})

test("the output of runs is kept out of the agent's own when the setting says so", async () => {
  const { code, stdout } = await tryOut("sh -c 'echo out-$((40 + 2))'", '--process-stream-output', 'false')
  assert.equal(code, 0, stdout)
  assert.doesNotMatch(stdout, /out-42/)
})
