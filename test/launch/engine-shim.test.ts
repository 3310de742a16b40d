import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdir, readFile, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import test, { after, before, describe } from 'node:test'

import * as v from 'valibot'

import { explainEngineExit } from '../../src/launch/engine-exit.ts'
import { makeDirectory } from '../support/directory.ts'
import {
  claim,
  countRuns,
  createClaimedRun,
  createDeployment,
  readMessages,
  readState,
  resume,
  runPython,
  shim,
  writeFiles,
} from '../support/engine-run.ts'
import { type PrefectServer, type PrefectVersion, startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'

/** What the flow below writes down about itself. */
const Told = v.object({
  from: v.string(),
  cwd: v.string(),
  file: v.string(),
  path: v.array(v.string()),
  attempts: v.number(),
  sum: v.number(),
  data: v.string(),
  day: v.string(),
  local: v.string(),
})

function flowFiles(from: string): Record<string, string> {
  return {
    'flows/main.py': `
import json, os, sys
from pathlib import Path
from prefect import flow, task
from prefect.deployments import run_deployment
import beside
from .near import NEAR
import top

attempts = []

@task
def add(a, b):
    return a + b

@flow
def child(x):
    return add(x, 1)

@flow(retries=1, retry_delay_seconds=0)
def main(day: str = "none"):
    attempts.append(day)
    if len(attempts) == 1:
        raise RuntimeError("the first attempt fails")
    import late
    try:
        import local
        found = local.LOCAL
    except ImportError:
        found = "missing"
    if os.environ.get("OTHER"):
        run_deployment(os.environ["OTHER"], timeout=0)
    told = {
        "from": "${from}", "cwd": os.getcwd(), "file": __file__, "path": sys.path, "attempts": len(attempts),
        "sum": child(beside.ONE + NEAR + top.ONE + late.ONE), "day": day, "local": found,
        "data": Path(__file__).with_name("data.txt").read_text(),
    }
    Path(os.environ["TOLD"]).write_text(json.dumps(told))
`,
    'flows/beside.py': 'ONE = 1',
    'flows/near.py': 'NEAR = 1',
    'flows/data.txt': from,
    'top.py': 'ONE = 1',
    'late.py': 'ONE = 1',
    // Must never be imported by the engine itself, which needs the real one before any flow is loaded.
    'anyio.py': 'raise RuntimeError("the flow code shadows the engine")',
  }
}

const slow = `
import os, time
from pathlib import Path
from prefect import flow

@flow
def main():
    Path(os.environ["TOLD"]).write_text("started")
    time.sleep(600)
`

const suspending = `
import os
from pathlib import Path
from prefect import flow, suspend_flow_run

@flow(persist_result=True)
def main():
    suspend_flow_run(timeout=600)
    Path(os.environ["TOLD"]).write_text("went on")
`

// Both at once: of all files this one takes longest among the last to begin.
describe('an engine that the shim starts', { concurrency: 2 }, () => {
  for (const which of ['prefect2', 'prefect3'] as const) {
    describe(`on ${which}`, { concurrency: 1 }, () => {
      const { skip } = needs(which)
      let server: PrefectServer
      if (!skip) {
        before(async () => {
          server = await startPrefectServer(which)
        })
        after(async () => await server[Symbol.asyncDispose]())
      }
      testEngine(which, () => server)
    })
  }
})

function testEngine(which: PrefectVersion, theServer: () => PrefectServer): void {
  /** Directories of one run: `workspace` with the fetched code, `storage` with what a download would bring, `cwd`. */
  async function makeFolders() {
    const directory = await makeDirectory()
    const path = await realpath(directory.path)
    const folders = { storage: join(path, 'storage'), workspace: join(path, 'workspace'), cwd: join(path, 'cwd') }
    for (const folder of Object.values(folders)) await mkdir(folder)
    await writeFiles(folders.storage, flowFiles('storage'))
    await writeFiles(folders.workspace, flowFiles('workspace'))
    await writeFiles(folders.cwd, { 'local.py': 'LOCAL = "found"' })
    const told = join(path, 'told.json')
    const steps = join(path, 'steps')
    const env = (runId: string): Record<string, string> => ({
      PREFECT_API_URL: theServer().apiUrl,
      PREFECT_HOME: join(path, 'home'),
      PREFECT__FLOW_RUN_ID: runId,
      RIGEL_WORKSPACE: folders.workspace,
      TOLD: told,
    })
    const readTold = async () => v.parse(Told, JSON.parse(await readFile(told, 'utf8')))
    const step = { 'prefect.deployments.steps.run_shell_script': { script: `sh -c "echo ran >> ${steps}"` } }
    return {
      ...folders,
      told,
      steps,
      step,
      env,
      readTold,
      [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
    }
  }

  test(
    `${which}: a flow with retries, sub-flow, tasks and relative imports runs from the workspace, fetched once`,
    needs(which),
    async () => {
      await using folders = await makeFolders()
      const server = theServer()
      const other = await createDeployment(server, { name: 'other', entrypoint: 'x.py:main' })
      const deployment = await createDeployment(server, {
        name: 'stored',
        entrypoint: 'flows/main.py:main',
        path: folders.storage,
      })
      const run = await createClaimedRun(server, deployment, { day: 'Monday' })
      const exit = await runPython(which, [shim], {
        cwd: folders.workspace,
        env: { ...folders.env(run), OTHER: 'main/other' },
      })
      assert.equal(exit.code, 0, exit.output)
      assert.equal((await readState(server, run)).type, 'COMPLETED', exit.output)
      const told = await folders.readTold()
      assert.equal(told.from, 'workspace')
      assert.equal(told.data, 'workspace')
      assert.equal(told.attempts, 2)
      assert.equal(told.sum, 5)
      assert.equal(told.day, 'Monday')
      assert.equal(told.cwd, folders.workspace)
      assert.equal(await countRuns(server, other), 1, 'run_deployment has made a run')
      const messages = await readMessages(server, run)
      assert.ok(messages.length > 0)
      assert.deepEqual(
        messages.filter(message => message.includes('Downloading')),
        [],
      )
    },
  )

  test(
    `${which}: pull steps are not run again, and a working_dir stays the current directory`,
    needs(which),
    async () => {
      await using folders = await makeFolders()
      const server = theServer()
      const deployment = await createDeployment(server, {
        name: 'pulled',
        entrypoint: 'flows/main.py:main',
        pull_steps: [folders.step],
      })
      const run = await createClaimedRun(server, deployment)
      const exit = await runPython(which, [shim], { cwd: folders.cwd, env: folders.env(run) })
      assert.equal(exit.code, 0, exit.output)
      assert.equal((await readState(server, run)).type, 'COMPLETED', exit.output)
      const told = await folders.readTold()
      assert.equal(told.cwd, folders.cwd)
      assert.equal(told.local, 'found', 'modules of the current directory can be imported')
      assert.equal(told.file, join(folders.workspace, 'flows/main.py'))
      assert.ok(told.path.indexOf(folders.cwd) < told.path.indexOf(folders.workspace), told.path.join(' '))
      assert.ok(told.path.includes(folders.cwd))
      assert.equal(existsSync(folders.steps), false, 'a pull step ran')
    },
  )

  test(`${which}: steps that the agent has left are run, with outputs of those it has done`, needs(which), async () => {
    await using folders = await makeFolders()
    const server = theServer()
    const deployment = await createDeployment(server, {
      name: 'half',
      entrypoint: 'job.py:main',
      pull_steps: [
        { 'prefect.deployments.steps.git_clone': { repository: 'https://nowhere.invalid/x.git', id: 'clone' } },
        {
          'prefect.deployments.steps.run_shell_script': {
            script: `sh -c "pwd >> ${folders.steps}"`,
            directory: '{{ clone.directory }}',
          },
        },
      ],
    })
    const run = await createClaimedRun(server, deployment)
    await writeFiles(folders.workspace, { 'repo/job.py': slow.replace('"started"', 'os.getcwd()').replace('600', '0') })
    const pulled = { taken: 1, outputs: [{ id: 'clone', directory: 'repo' }] }
    const env = { ...folders.env(run), RIGEL_PULLED_STEPS: JSON.stringify(pulled) }
    const exit = await runPython(which, [shim], { cwd: folders.cwd, env })
    assert.equal(exit.code, 0, exit.output)
    assert.equal((await readState(server, run)).type, 'COMPLETED', exit.output)
    const repository = join(folders.workspace, 'repo')
    assert.equal(await readFile(folders.steps, 'utf8'), `${repository}\n`)
    assert.equal(await readFile(folders.told, 'utf8'), repository)
  })

  test(
    `${which}: a flow that is not in the workspace ends as the engine ends it, with its reason on the server`,
    needs(which),
    async () => {
      await using folders = await makeFolders()
      const server = theServer()
      const deployment = await createDeployment(server, { name: 'missing', entrypoint: 'nowhere.py:main' })
      const run = await createClaimedRun(server, deployment)
      const exit = await runPython(which, [shim], { cwd: folders.cwd, env: folders.env(run) })
      assert.match(exit.output, new RegExp(`${folders.workspace}/nowhere\\.py`))
      // 2.20 forces Failed and ends with 0; 3.x ends with 1 and leaves the rest to whoever started it.
      assert.equal(exit.code, which === 'prefect2' ? 0 : 1, exit.output)
      assert.equal((await readState(server, run)).type, which === 'prefect2' ? 'FAILED' : 'PENDING')
    },
  )

  test(
    `${which}: SIGTERM ends it as it ends a bare engine, which runs the pull steps that it does not`,
    needs(which),
    async () => {
      await using folders = await makeFolders()
      const server = theServer()
      for (const folder of [folders.workspace, folders.cwd]) await writeFiles(folder, { 'slow.py': slow })
      const deployment = await createDeployment(server, {
        name: 'slow',
        entrypoint: 'slow.py:main',
        pull_steps: [folders.step],
      })
      const endings = []
      for (const isShim of [true, false]) {
        const run = await createClaimedRun(server, deployment)
        const told = `${folders.told}-${endings.length}`
        const exit = await runPython(which, isShim ? [shim] : ['-m', 'prefect.engine'], {
          cwd: isShim ? folders.workspace : folders.cwd,
          env: { ...folders.env(run), TOLD: told },
          onStart: async pid => {
            await until(() => existsSync(told), { what: 'the flow to start' })
            process.kill(pid, 'SIGTERM')
          },
        })
        assert.equal(existsSync(folders.steps), !isShim, exit.output)
        const { type } = await readState(server, run)
        endings.push({ code: exit.code, signal: exit.signal, type })
      }
      assert.equal(await readFile(folders.steps, 'utf8'), 'ran\n')
      assert.deepEqual(endings[0], endings[1])
      assert.equal(endings[0]?.type, 'CRASHED')
    },
  )

  test(
    `${which}: a suspended flow of a module in the workspace leaves with 0 and goes on when it is started again`,
    needs(which),
    async () => {
      await using folders = await makeFolders()
      const server = theServer()
      await writeFiles(folders.workspace, { 'package/suspending.py': suspending })
      const deployment = await createDeployment(server, { name: 'suspending', entrypoint: 'package.suspending.main' })
      const run = await createClaimedRun(server, deployment)
      const first = await runPython(which, [shim], { cwd: folders.cwd, env: folders.env(run) })
      assert.equal(first.code, 0, first.output)
      assert.equal((await readState(server, run)).name, 'Suspended', first.output)
      await resume(server, run)
      await claim(server, run)
      const second = await runPython(which, [shim], { cwd: folders.cwd, env: folders.env(run) })
      assert.equal(second.code, 0, second.output)
      assert.equal((await readState(server, run)).type, 'COMPLETED', second.output)
      assert.equal(await readFile(folders.told, 'utf8'), 'went on')
    },
  )

  test(`${which}: a Python without Prefect ends with a code of its own and names itself`, needs(which), async () => {
    await using folders = await makeFolders()
    // A mere folder called "prefect" can be imported; it must not count.
    await mkdir(join(folders.cwd, 'prefect'))
    for (const env of [{}, { PYTHONPATH: folders.cwd }]) {
      const exit = await runPython(which, ['-S', shim], { cwd: folders.cwd, env })
      assert.match(exit.output, /^rigel: no Prefect in \/.+\/bin\/python \(3\.\d+\.\d+\)\n$/)
      const outputTail = exit.output.trimEnd().split('\n')
      assert.match(
        explainEngineExit({ statusCode: exit.code ?? undefined, outputTail }) ?? `code ${exit.code}`,
        /bin\/python has no Prefect/,
      )
    }
  })
}

/** A Prefect that nobody has seen yet: its engine prints how it was started. */
const strangers = {
  'prefect/__init__.py': '__version__ = "9.1.2"',
  'prefect/flows.py': 'async def load_flow_from_flow_run(run): pass',
  'prefect/client/__init__.py': '',
  'prefect/client/orchestration.py': 'class PrefectClient: pass',
  'prefect/engine.py': `
import sys, os
main = sys.modules["__main__"]
print(__name__, __spec__.name, main.__dict__ is globals(), sys.argv[0] == __file__, sys.path[0] == os.getcwd())
sys.exit(7)
`,
}

test('an unknown Prefect runs its own engine as main, with a warning', needs('prefect3'), async () => {
  await using directory = await makeDirectory()
  await writeFiles(directory.path, strangers)
  const options = { cwd: await realpath('/tmp'), env: { PYTHONPATH: directory.path } }
  const exit = await runPython('prefect3', ['-S', shim], {
    ...options,
    env: { ...options.env, RIGEL_WORKSPACE: '/tmp/x' },
  })
  assert.equal(exit.code, 7, exit.output)
  assert.match(exit.output, /^__main__ prefect\.engine True True True$/m)
  assert.match(exit.output, /^rigel: Prefect 9\.1\.2 loads flows in an unknown way/m)
  const bare = await runPython('prefect3', ['-S', '-m', 'prefect.engine'], options)
  assert.equal(bare.code, 7)
  assert.match(bare.output, /^__main__ prefect\.engine True True True$/m)
})

test('without a workspace the engine is left alone', needs('prefect3'), async () => {
  await using directory = await makeDirectory()
  await writeFiles(directory.path, strangers)
  const env = { PYTHONPATH: directory.path }
  const exit = await runPython('prefect3', ['-S', shim], { cwd: await realpath('/tmp'), env })
  assert.equal(exit.code, 7)
  assert.doesNotMatch(exit.output, /rigel:/)
})
