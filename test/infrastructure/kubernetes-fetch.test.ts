// Code that no ConfigMap could hold: the pod fetches it by itself, with our own image, under the restricted rules.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import process from 'node:process'
import { after, before, suite, test } from 'node:test'
import * as v from 'valibot'
import { never, openStage, type Stage } from '../agent/stage.ts'
import { makeBucket, type S3Place } from '../storage/s3-server.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { Bridge, KubernetesScene, over } from './kubernetes-scene.ts'

const options = { ...needs('prefect2', 'kubernetes', 'image', 's3'), timeout: 400_000 }
const fetchImage = process.env.RIGEL_TEST_IMAGE ?? ''

const flow = `import json, os, pathlib
from prefect import flow

@flow
def look():
    here = pathlib.Path(".")
    print("LOOK", json.dumps({
        "cwd": os.getcwd(),
        "uid": os.getuid(),
        "files": {str(p): [p.stat().st_size, oct(p.stat().st_mode & 0o777), p.stat().st_uid] for p in sorted(here.rglob("*")) if p.is_file()},
        "secret": sorted(name for name in os.listdir("/rigel")),
    }))
`
const Look = v.object({
  cwd: v.string(),
  uid: v.number(),
  files: v.record(v.string(), v.tuple([v.number(), v.string(), v.number()])),
  secret: v.array(v.string()),
})

const restricted = {
  'pod-security.kubernetes.io/enforce': 'restricted',
  'pod-security.kubernetes.io/enforce-version': 'latest',
}
/** The flow's own container as the restricted rules want it, as another user than that of our image. */
const ownUser = {
  op: 'add',
  path: '/spec/template/spec/containers/0/securityContext',
  value: {
    allowPrivilegeEscalation: false,
    runAsNonRoot: true,
    runAsUser: 1234,
    capabilities: { drop: ['ALL'] },
    seccompProfile: { type: 'RuntimeDefault' },
  },
}

suite('code above the limit of a ConfigMap', { ...options, concurrency: 2 }, () => {
  let scene: KubernetesScene
  let bucket: S3Place & AsyncDisposable
  let bridge: Bridge
  before(async () => {
    scene = await KubernetesScene.open()
    const path = `/api/v1/namespaces/${scene.namespace}`
    await scene.client.call('PATCH', path, { body: { metadata: { labels: restricted } } }, never)
    bucket = await makeBucket('s3')
    bridge = await Bridge.open(new URL(bucket.endpoint))
    await bucket.put('flows/look/flow.py', flow)
    await bucket.put('flows/look/data/large.bin', randomBytes(2 * 1024 * 1024))
    await bucket.put('flows/other/not-asked-for', 'x')
  })
  after(async () => {
    await bridge[Symbol.asyncDispose]()
    await bucket[Symbol.asyncDispose]()
    await scene[Symbol.asyncDispose]()
  })

  const settingsOf = (endpoint: string) => ({
    key: bucket.accessKeyId,
    secret: bucket.secretAccessKey,
    client_kwargs: { endpoint_url: endpoint },
  })

  const createStorage = async ({ client }: Stage, endpoint: string): Promise<string> => {
    const type = await client.readBlockTypeBySlug('remote-file-system', never)
    assert.ok(type)
    const [schema] = await client.readBlockSchemas(type.id, never)
    assert.ok(schema)
    const data = { basepath: `s3://${bucket.bucket}/flows`, settings: settingsOf(endpoint) }
    const block = { is_anonymous: true, block_type_id: type.id, block_schema_id: schema.id, data }
    return (await client.createBlockDocument(block, never)).id
  }

  const setVariable = async (name: string, value: string): Promise<void> => {
    const headers = { 'content-type': 'application/json' }
    const body = JSON.stringify({ name, value })
    const answer = await fetch(`${scene.server.apiUrl}/variables/`, { method: 'POST', headers, body })
    assert.equal(answer.status, 201)
  }

  const createJobBlock = (stage: Stage) =>
    scene.createBlock(stage, { image: 'rigel.test/prefect:2.20.25', env: { HOME: '/tmp' }, customizations: [ownUser] })

  /** All that the run has in the cluster, as text. */
  const describeJob = async (flowRunId: string): Promise<string> => {
    const query = { labelSelector: `rigel.io/flow-run-id=${flowRunId}` }
    const read = (path: string) => scene.client.call('GET', path, { query }, never)
    const jobs = await read(`/apis/batch/v1/namespaces/${scene.namespace}/jobs`)
    return JSON.stringify([jobs, await read(`/api/v1/namespaces/${scene.namespace}/pods`)])
  }

  const pythonSteps = () => [
    {
      'prefect.deployments.steps.pull_from_remote_storage': {
        url: `s3://${bucket.bucket}/flows/look`,
        ...settingsOf('{{ prefect.variables.storage_endpoint }}'),
      },
    },
  ]

  for (const way of ['a storage block', 'pull steps'] as const) {
    test(`a flow of ${way} runs from code that its pod has fetched, with modes that it can use`, async () => {
      await using stage = await openStage(scene.server.apiUrl)
      if (way === 'pull steps') await setVariable('storage_endpoint', bridge.url)
      const deployment = await stage.deploy({
        entrypoint: 'flow.py:look',
        infrastructure_document_id: await createJobBlock(stage),
        ...(way === 'pull steps'
          ? { pull_steps: pythonSteps() }
          : { path: 'look', storage_document_id: await createStorage(stage, bridge.url) }),
      })
      await using agent = scene.startAgent(stage, { fetchImage })
      const run = await stage.run(deployment)
      const done = await stage.waitFor(run.id, over, 240_000)
      assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${agent.output}`)
      // Output may come after the engine has reported.
      const line = await until(() => /LOOK (\{.*\})/.exec(agent.output)?.[1], { timeoutMs: 60_000, what: 'the output' })
      const look = v.parse(Look, JSON.parse(line))
      // Steps make a folder each, and the flow begins in that of the last.
      const start = way === 'pull steps' ? `/rigel/workspace/${bucket.bucket}/flows/look` : '/rigel/workspace'
      assert.equal(look.cwd, start)
      assert.equal(look.uid, 1234)
      assert.deepEqual(look.files, {
        'data/large.bin': [2 * 1024 * 1024, '0o644', 10_001],
        'flow.py': [flow.length, '0o644', 10_001],
      })
      assert.deepEqual(look.secret, ['files', 'workspace'], 'the flow does not see what the code was fetched with')
      assert.ok(!(await describeJob(run.id)).includes(bucket.secretAccessKey), 'no secret in manifest or status')
      assert.ok(!agent.output.includes(bucket.secretAccessKey), 'no secret in the log')
    })
  }

  test('a pod that cannot fetch ends the run as Crashed, with the reason and the last lines', async () => {
    await using stage = await openStage(scene.server.apiUrl)
    const deployment = await stage.deploy({
      path: 'look',
      entrypoint: 'flow.py:look',
      infrastructure_document_id: await createJobBlock(stage),
      // This machine's loopback, where the agent finds the storage and the pod nothing.
      storage_document_id: await createStorage(stage, bucket.endpoint),
    })
    await using agent = scene.startAgent(stage, { fetchImage })
    const run = await stage.run(deployment)
    const done = await stage.waitFor(run.id, over, 240_000)
    assert.equal(done.state_type, 'CRASHED', agent.output)
    const message = done.state?.message ?? ''
    assert.match(message, /[Ii]nit container "rigel-fetch" failed with code 1/)
    assert.match(message, /ECONNREFUSED/)
    assert.ok(!message.includes(bucket.secretAccessKey))
  })
})
