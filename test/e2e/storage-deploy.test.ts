// The whole way of a deployment, once for each storage: a block, a build that uploads the code and registers the deployment, a
// run that the agent fetches from there and executes, Completed. All by the command, as a person would do it.

import assert from 'node:assert/strict'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import * as v from 'valibot'
import { openServer, runCli, type TestServer } from '../commands/support.ts'
import { makeDirectory } from '../support/directory.ts'
import { findPrefect } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { type StorageKind, storageKinds } from './storage-places.ts'
import { storageVariants } from './storage-variants.ts'

const signal = new AbortController().signal

/** The same job twice: for Prefect's engine, and as a program that knows nothing of Prefect. */
const code = {
  'flow.py': `
import os
from pathlib import Path
from prefect import flow
from lib.words import GREETING

@flow
def greet(name: str = "world"):
    Path(os.environ["TOLD"]).write_text(f"{GREETING} {name}")
`,
  'lib/words.py': 'GREETING = "hello"\n',
  'job.sh': '. lib/words.sh\nprintf "$GREETING program" > "$TOLD"\n',
  'lib/words.sh': 'GREETING=hello\n',
  '.env': 'PASSWORD=not for the storage\n',
}

/** An engine takes ten seconds to start, and sees the same workspace whatever it came from. */
const withEngine = new Set(['s3', 'git'])

for (const which of ['prefect2', 'embedded'] as const) {
  const requirement = which === 'prefect2' ? (['prefect2'] as const) : []
  const { skip } = needs(...requirement)
  let server: TestServer
  if (!skip) {
    before(async () => {
      server = await openServer(which)
    })
    after(async () => await server[Symbol.asyncDispose]())
  }
  for (const kind of which === 'embedded' ? [...storageKinds, ...storageVariants] : storageKinds) {
    const requirements = [...requirement, ...(kind.requirement ? [kind.requirement] : [])]
    test(`${which}: a deployment through ${kind.name} runs to its end`, needs(...requirements), async () => {
      await goTheWholeWay(
        server,
        kind,
        which === 'prefect2' && withEngine.has(kind.name) ? 'flow.py:greet' : 'sh job.sh',
      )
    })
  }
}

async function goTheWholeWay({ apiUrl, client }: TestServer, kind: StorageKind, entrypoint: string): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const directory = stack.use(await makeDirectory())
  const place = await kind.open(directory.path)
  stack.defer(async () => await place.clear?.())
  const source = join(directory.path, 'source')
  const told = join(directory.path, 'told')
  await mkdir(join(source, 'lib'), { recursive: true })
  for (const [path, text] of Object.entries(code)) await writeFile(join(source, path), text)
  const fields = join(directory.path, 'fields.json')
  await writeFile(fields, JSON.stringify(place.block.data))
  const isPython = entrypoint.includes('.py:')
  const env = {
    ...place.environment,
    PREFECT_API_URL: apiUrl,
    PREFECT_HOME: join(directory.path, 'prefect'),
    RIGEL_STATE_DIR: join(directory.path, 'state'),
    RIGEL_CACHE_DIR: join(directory.path, 'cache'),
    TOLD: told,
    ...(isPython ? { RIGEL_PYTHON: join(findPrefect('prefect2'), 'bin/python') } : {}),
  }
  const rigel = async (...args: string[]) => {
    const { code, stdout, stderr } = await runCli(args, { env, cwd: source })
    assert.equal(code, 0, `rigel ${args.join(' ')}: ${stdout}${stderr}`)
    if (place.secret) assert.ok(!(stdout + stderr).includes(place.secret), `rigel ${args[0]} shows a secret`)
    return stdout
  }

  const name = kind.name
  const block = `${place.block.slug}/${name}`
  await rigel('block', 'create', place.block.slug, '--name', name, '--file', fields)
  await rigel('block', 'inspect', block)
  const queue = `queue-${name}`
  const flowName = isPython ? [] : ['--flow-name', 'job']
  await place.publish?.(code)
  const storage = place.publish ? block : `${block}/apps/one`
  const build = ['deployment', 'build', entrypoint, '-n', name, '-q', queue, '-sb', storage, '--apply']
  const built = v.parse(Built, JSON.parse(await rigel(...build, ...flowName, '--output', 'json')))
  // The deployment file too, as with Prefect's own command; not .env and .prefectignore.
  assert.equal(built.uploaded?.files, place.publish ? undefined : 5)
  if (place.secret) assert.ok(!(await readFile(built.file, 'utf8')).includes(place.secret), 'the file holds a secret')

  const run = await client.createFlowRunFromDeployment(built.deployment_id, {}, signal)
  const agent = await runCli(['agent', 'start', '-q', queue, '--run-once'], { env, cwd: directory.path })
  const ended = await client.readFlowRun(run.id, signal)
  assert.equal(ended?.state_type, 'COMPLETED', `${ended?.state?.message}\n${agent.stdout}${agent.stderr}`)
  assert.equal(await readFile(told, 'utf8'), isPython ? 'hello world' : 'hello program')
  if (place.secret) assert.ok(!(agent.stdout + agent.stderr).includes(place.secret), 'the agent logs a secret')
}

const Built = v.object({
  file: v.string(),
  deployment_id: v.string(),
  uploaded: v.nullable(v.object({ files: v.number() })),
})
