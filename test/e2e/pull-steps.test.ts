// Each pull step that fetches, the whole way on a real Prefect 2 server: a deployment file with the step, a run that the agent
// fetches and executes, Completed. Blocks, variables and the environment are filled in on the way.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { openServer, runCli, type TestServer } from '../commands/support.ts'
import { connectionString, openAzurePlace } from '../storage/azure-server.ts'
import type { ContractPlace } from '../storage/contract.ts'
import { openGcsPlace } from '../storage/gcs-server.ts'
import { gitEnvironment, makeRepository } from '../storage/git-server.ts'
import { makeBucket } from '../storage/s3-server.ts'
import { makeDirectory } from '../support/directory.ts'
import { findPrefect } from '../support/prefect-server.ts'
import { needs, type Requirement } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'

const signal = new AbortController().signal
const own = 'prefect.deployments.steps'
const code = { 'job.sh': '. lib/words.sh\nprintf "$GREETING program" > "$TOLD"\n', 'lib/words.sh': 'GREETING=hello\n' }
const flow = `
import os
from pathlib import Path
from prefect import flow

@flow
def tell():
    # The place that set_working_directory has named, and what the shell step has left there.
    Path(os.environ["TOLD"]).write_text("hello " + Path("mark").read_text())
`

interface Scene {
  readonly directory: string
  /** `rigel block create`. */
  readonly createBlock: (slug: string, name: string, data: Readonly<Record<string, unknown>>) => Promise<void>
  readonly own: (place: AsyncDisposable) => void
}

interface Plan {
  readonly steps: readonly unknown[]
  readonly environment?: Readonly<Record<string, string>>
  readonly secret?: string | undefined
}

interface Row {
  readonly name: string
  readonly requirement?: Requirement
  readonly entrypoint?: string
  readonly plan: (scene: Scene) => Promise<Plan>
}

async function putCode(place: Pick<ContractPlace, 'put'>, below = ''): Promise<void> {
  for (const [path, text] of Object.entries(code)) await place.put(`${below}${path}`, text)
}

const rows: readonly Row[] = [
  {
    name: 'git_clone with a block, a variable and an environment variable',
    requirement: 'git',
    async plan({ createBlock }) {
      const { url_tls = '', token = '' } = storageServer('git')
      const repository = await makeRepository('private')
      await repository.commit(code, 'release')
      await createBlock('secret', 'git-token', { value: token })
      const inputs = {
        repository: `${url_tls}{{ $REPOSITORY }}`,
        branch: '{{ prefect.variables.branch }}',
        access_token: '{{ prefect.blocks.secret.git-token }}',
      }
      return {
        steps: [{ [`${own}.git_clone`]: inputs }],
        environment: { ...gitEnvironment(), REPOSITORY: repository.name },
        secret: token,
      }
    },
  },
  {
    name: 'pull_with_block',
    requirement: 's3',
    async plan({ createBlock, own: keep }) {
      const bucket = await makeBucket('s3')
      keep(bucket)
      await putCode(bucket, 'flows/')
      const { endpoint, accessKeyId: aws_access_key_id, secretAccessKey: aws_secret_access_key } = bucket
      const data = { bucket_path: `${bucket.bucket}/flows`, aws_access_key_id, aws_secret_access_key }
      await createBlock('s3', 'pulled', data)
      return {
        steps: [{ [`${own}.pull_with_block`]: { block_type_slug: 's3', block_document_name: 'pulled' } }],
        environment: { AWS_ENDPOINT_URL: endpoint },
        secret: aws_secret_access_key,
      }
    },
  },
  {
    name: 'pull_from_s3',
    requirement: 's3',
    async plan({ own: keep }) {
      const made = await makeBucket('s3')
      keep(made)
      await putCode(made, 'flows/')
      const { bucket, endpoint, accessKeyId: aws_access_key_id, secretAccessKey: aws_secret_access_key } = made
      const credentials = { aws_access_key_id, aws_secret_access_key }
      const inputs = { bucket, folder: 'flows', credentials, client_parameters: { endpoint_url: endpoint } }
      return { steps: [{ 'prefect_aws.deployments.steps.pull_from_s3': inputs }], secret: aws_secret_access_key }
    },
  },
  {
    name: 'pull_from_gcs',
    requirement: 'gcs',
    async plan({ own: keep }) {
      const place = await openGcsPlace('guarded', ({ bucket, endpoint }) => ({ slug: '', data: { bucket, endpoint } }))
      keep(place)
      await putCode(place)
      const { bucket, endpoint } = place.block().data
      const service_account_info = JSON.parse(readFileSync(storageServer('gcs').service_account_file ?? '', 'utf8'))
      const inputs = { bucket, folder: 'flows', credentials: { service_account_info } }
      return {
        steps: [{ 'prefect_gcp.deployments.steps.pull_from_gcs': inputs }],
        environment: { STORAGE_EMULATOR_HOST: String(endpoint) },
        secret: service_account_info.private_key.split('\n')[3],
      }
    },
  },
  {
    name: 'pull_from_azure_blob_storage',
    requirement: 'azure',
    async plan({ own: keep }) {
      const place = await openAzurePlace(account => ({
        slug: '',
        data: { container: account.container, connection_string: connectionString(account) },
      }))
      keep(place)
      await putCode(place)
      const { container, connection_string } = place.block().data
      const inputs = { container, folder: 'flows', credentials: { connection_string } }
      return {
        steps: [{ 'prefect_azure.deployments.steps.pull_from_azure_blob_storage': inputs }],
        secret: storageServer('azure').key,
      }
    },
  },
  {
    name: 'pull_from_remote_storage',
    requirement: 's3',
    async plan({ own: keep }) {
      const bucket = await makeBucket('s3')
      keep(bucket)
      await putCode(bucket, 'flows/')
      const { endpoint, accessKeyId: key, secretAccessKey: secret } = bucket
      const inputs = { url: `s3://${bucket.bucket}/flows`, key, secret, client_kwargs: { endpoint_url: endpoint } }
      return { steps: [{ [`${own}.pull_from_remote_storage`]: inputs }], secret }
    },
  },
  {
    name: 'set_working_directory, pip_install_requirements and run_shell_script',
    entrypoint: 'flow.py:tell',
    async plan({ directory }) {
      await mkdir(join(directory, 'there'))
      await writeFile(join(directory, 'there', 'flow.py'), flow)
      // Nothing to install, so nothing is asked of a registry.
      await writeFile(join(directory, 'there', 'requirements.txt'), '# none\n')
      return {
        steps: [
          { [`${own}.set_working_directory`]: { directory: join(directory, 'there') } },
          { [`${own}.pip_install_requirements`]: { directory: join(directory, 'there') } },
          { [`${own}.run_shell_script`]: { id: 'shell', script: 'printf program', stream_output: false } },
          { [`${own}.run_shell_script`]: { script: 'sh -c "printf {{ shell.stdout }} > mark"' } },
        ],
      }
    },
  },
]

const { skip } = needs('prefect2')
let server: TestServer
if (!skip) {
  before(async () => {
    server = await openServer('prefect2')
    const body = JSON.stringify({ name: 'branch', value: 'release' })
    const headers = { 'content-type': 'application/json' }
    const answer = await fetch(`${server.apiUrl}/variables/`, { method: 'POST', headers, body })
    assert.equal(answer.status, 201)
  })
  after(async () => await server[Symbol.asyncDispose]())
}

for (const row of rows) {
  const requirements = ['prefect2' as const, ...(row.requirement ? [row.requirement] : [])]
  test(`a deployment that pulls by ${row.name} runs to its end`, needs(...requirements), async () => {
    await goTheWholeWay(row)
  })
}

async function goTheWholeWay({ name, entrypoint = 'sh job.sh', plan }: Row): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const { path: directory } = stack.use(await makeDirectory())
  const env: Record<string, string> = {
    PREFECT_API_URL: server.apiUrl,
    PREFECT_HOME: join(directory, 'prefect'),
    RIGEL_STATE_DIR: join(directory, 'state'),
    RIGEL_CACHE_DIR: join(directory, 'cache'),
    RIGEL_PYTHON: join(findPrefect('prefect2'), 'bin/python'),
    TOLD: join(directory, 'told'),
  }
  const rigel = async (...args: string[]) => {
    const { code, stdout, stderr } = await runCli(args, { env, cwd: directory })
    assert.equal(code, 0, `rigel ${args.join(' ')}: ${stdout}${stderr}`)
    return stdout
  }
  const { steps, environment, secret } = await plan({
    directory,
    own: place => void stack.use(place),
    async createBlock(slug, block, data) {
      await writeFile(join(directory, 'fields.json'), JSON.stringify(data))
      await rigel('block', 'create', slug, '--name', block, '--file', 'fields.json')
    },
  })
  Object.assign(env, environment)
  // JSON is YAML, too.
  const deployment = { flow: 'tell', name, entrypoint, queue: name, pull_steps: steps }
  await writeFile(join(directory, 'deployment.yaml'), JSON.stringify(deployment))
  await rigel('deployment', 'apply', 'deployment.yaml')
  const found = await server.client.readDeploymentByName('tell', name, signal)
  const { id } = await server.client.createFlowRunFromDeployment(found?.id ?? '', {}, signal)
  const agent = await runCli(['agent', 'start', '-q', name, '--run-once'], { env, cwd: directory })
  const ended = await server.client.readFlowRun(id, signal)
  assert.equal(ended?.state_type, 'COMPLETED', `${ended?.state?.message}\n${agent.stdout}${agent.stderr}`)
  assert.equal(await readFile(env.TOLD ?? '', 'utf8'), 'hello program')
  if (secret) assert.ok(!(agent.stdout + agent.stderr).includes(secret), 'the agent logs a secret')
}
