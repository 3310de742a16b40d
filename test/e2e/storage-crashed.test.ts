// What becomes of a run whose code cannot be fetched, once for each storage and way to name it: Crashed, with what was tried, on
// what, with which kind of credentials, and the words of the server; the secret is in no state and no log.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { StorageBlock } from '../../src/storage/registry.ts'
import { openServer, runCli, type TestServer } from '../commands/support.ts'
import { assertNoSecret } from '../storage/contract.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { type StorageKind, storageKinds } from './storage-places.ts'
import { storageVariants } from './storage-variants.ts'

const signal = new AbortController().signal
/** Each changes what the block and the environment say; it is left out where that changes nothing. `said` must be in the message. */
const flaws = [
  { flaw: 'missing path', path: 'is-not-there', spoil: (text: string) => text, said: /is-not-there/ },
  {
    flaw: 'missing bucket',
    path: '',
    // The name that every place of a test's own has.
    spoil: (text: string) => text.replaceAll(/(?:deploy|test)-[0-9a-f]{12}/g, 'test-000000000000'),
    said: /test-000000000000/,
  },
  {
    flaw: 'wrong secret',
    path: '',
    // Another one that holds the right one, in base64 as well.
    spoil: (text: string, secret?: string) => (secret ? text.replaceAll(secret, `AAAA${secret}`) : text),
    said: /: .{8}/,
  },
  {
    flaw: 'no server',
    path: '',
    spoil: (text: string) =>
      text.replaceAll(/(?:127\.0\.0\.1|localhost):\d+/g, '127.0.0.1:9').replaceAll(/"((?:smb_)?port)":\d+/g, '"$1":9'),
    // The latter in the words of git.
    said: /refused|couldn't connect/i,
  },
] as const

let server: TestServer
before(async () => {
  server = await openServer('embedded')
})
after(async () => await server[Symbol.asyncDispose]())

for (const kind of [...storageKinds, ...storageVariants]) {
  const requirements = kind.requirement ? [kind.requirement] : []
  test(`${kind.name}: a run whose code cannot be fetched is Crashed and says why`, needs(...requirements), async () => {
    await crash(kind)
  })
}

/** Wrong addresses as parsers of URLs meet them, with a secret in them. */
const addresses: readonly { name: string; expected: RegExp; blockOf: (address: string) => StorageBlock }[] = [
  {
    name: 'endpoint of S3',
    expected: /"endpoint_url" is not a URL/,
    blockOf: endpoint_url => ({
      slug: 's3-bucket',
      data: { bucket_name: 'b', credentials: { aws_client_parameters: { endpoint_url } } },
    }),
  },
  {
    name: 'endpoint of GCS',
    expected: /"endpoint_url" is not a URL/,
    blockOf: url => remote('gs://b', { endpoint_url: url }),
  },
  {
    name: 'base of WebDAV',
    expected: /"base_url" is not a URL/,
    blockOf: url => remote('webdav://b', { base_url: url }),
  },
  { name: 'account of Azure', expected: /account is not a URL/, blockOf: url => azure({ account_url: url }) },
  {
    name: 'endpoint of Azure',
    expected: /names neither an account nor a BlobEndpoint/,
    blockOf: url => azure({ connection_string: `BlobEndpoint=${url}` }),
  },
  {
    name: 'repository',
    expected: /address of the repository is not a URL/,
    blockOf: repository => ({ slug: 'github', data: { repository } }),
  },
]

function remote(basepath: string, settings: Readonly<Record<string, unknown>>): StorageBlock {
  return { slug: 'remote-file-system', data: { basepath, settings } }
}

function azure(credentials: Readonly<Record<string, unknown>>): StorageBlock {
  return { slug: 'azure-blob-storage-container', data: { container_name: 'c', credentials } }
}

test('a run whose block holds an address that is none is Crashed and says which; no log shows the address', async () => {
  await using directory = await makeDirectory()
  const secret = 'a-secret-of-mine'
  const wrong = ['http://', `http://u:${secret}@[h/`]
  const cases = addresses.flatMap(({ name, expected, blockOf }) =>
    wrong.map(
      (address, at): Case => ({
        flaw: `${name} ${at}`,
        path: '',
        expected,
        block: blockOf(address),
        environment: {},
      }),
    ),
  )
  const percent = remote('webdav://b', { base_url: `http://u:${secret}@h/100%/` })
  cases.push({ flaw: 'escape', path: '', expected: /"base_url" has a "%"/, block: percent, environment: {} })
  for (const { flaw, expected, type, message, output } of await runAll(directory.path, 'wrong address', cases)) {
    assert.equal(type, 'CRASHED', `${flaw}: ${message}\n${output}`)
    assert.match(message, expected, flaw)
    assertNoSecret(new Error(message + output), secret)
  }
})

async function crash(kind: StorageKind): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const directory = stack.use(await makeDirectory())
  const place = await kind.open(directory.path)
  stack.defer(async () => await place.clear?.())
  await place.publish?.({ 'job.sh': 'true\n' })
  const said = JSON.stringify([place.block, place.environment])
  const cases = flaws.flatMap(({ flaw, path, spoil, said: expected }): Case[] => {
    const spoilt = spoil(said, place.secret)
    if (path === '' && spoilt === said) return []
    const [block, environment]: [StorageBlock, Record<string, string>] = JSON.parse(spoilt)
    return [{ flaw, path, expected, block, environment }]
  })
  // An agent has one environment, and what cannot be changed there can be asked for in one life.
  const byEnvironment = Map.groupBy(cases, ({ environment }) => JSON.stringify(environment))
  for (const alike of byEnvironment.values()) {
    for (const { flaw, expected, type, message, output } of await runAll(directory.path, kind.name, alike)) {
      assert.equal(type, 'CRASHED', `${flaw}: ${message}\n${output}`)
      assert.match(message, /(?:Could not|Cannot) fetch .+: .+/, flaw)
      assert.match(message, expected, flaw)
      if (!place.secret) continue
      assert.match(message, /\([^)]*(?:key|token|password|credential|account)[^)]*\): .{8}/i, flaw)
      assertNoSecret(new Error(message + output), place.secret)
    }
  }
}

interface Case {
  readonly flaw: string
  readonly path: string
  readonly expected: RegExp
  readonly block: StorageBlock
  readonly environment: Readonly<Record<string, string>>
}

/** Deploys these, and has one agent start a run of each. */
async function runAll(directory: string, kind: string, cases: readonly Case[]) {
  const queue = `${kind} ${cases[0]?.flaw}`
  const env = {
    ...cases[0]?.environment,
    PREFECT_API_URL: server.apiUrl,
    PREFECT_HOME: join(directory, 'prefect'),
    RIGEL_STATE_DIR: join(directory, 'state'),
    RIGEL_CACHE_DIR: join(directory, 'cache'),
  }
  const options = { env, cwd: directory }
  // JSON is YAML, too.
  const documents = cases.map(({ flaw, path, block: { slug, data } }) => {
    const storage = { ...data, block_type_slug: slug }
    return JSON.stringify({ flow: kind, name: flaw, entrypoint: 'sh job.sh', queue, path, storage })
  })
  await writeFile(join(directory, 'deployments.yaml'), documents.join('\n---\n'))
  const applied = await runCli(['deployment', 'apply', 'deployments.yaml'], options)
  assert.equal(applied.code, 0, applied.stderr)
  const ids = await Promise.all(
    cases.map(async ({ flaw }) => {
      const found = await server.client.readDeploymentByName(kind, flaw, signal)
      return (await server.client.createFlowRunFromDeployment(found?.id ?? '', {}, signal)).id
    }),
  )
  const agent = await runCli(['agent', 'start', '-q', queue, '--run-once'], options)
  const runs = await Promise.all(ids.map(async id => await server.client.readFlowRun(id, signal)))
  return cases.map((one, at) => ({
    ...one,
    type: runs[at]?.state_type,
    message: runs[at]?.state?.message ?? '',
    output: agent.stdout + agent.stderr,
  }))
}
