// What the tests of the agent with Jobs share: a real Prefect server that pods reach, a namespace of the test cluster,
// agents and blocks for it.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmod } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import process from 'node:process'
import * as v from 'valibot'
import type { ClusterClient } from '../../src/infrastructure/kubernetes-client.ts'
import type { Deployment } from '../../src/prefect/types.ts'
import { type AgentPlan, AgentProcess, never, type Stage } from '../agent/stage.ts'
import { type PrefectServer, startPrefectServer } from '../support/prefect-server.ts'
import { busybox, kubeconfig, makeNamespace, openClient } from './kubernetes-subject.ts'

const List = v.object({ items: v.array(v.object({ metadata: v.object({ name: v.string() }) })) })
export const over = ['COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED'] as const

/** A local path means the pod's own disk, unless the agent is asked to fetch it from its. */
export const fetchedHere = { RIGEL_FETCH: 'agent' }

export class KubernetesScene implements AsyncDisposable {
  readonly server: PrefectServer
  readonly client: ClusterClient
  readonly namespace: string
  readonly #bridge: Bridge

  static async open(): Promise<KubernetesScene> {
    const server = await startPrefectServer('prefect2')
    const client = openClient()
    const namespace = await makeNamespace(client)
    return new KubernetesScene(server, client, namespace, await Bridge.open(new URL(server.apiUrl)))
  }

  private constructor(server: PrefectServer, client: ClusterClient, namespace: string, bridge: Bridge) {
    this.server = server
    this.client = client
    this.namespace = namespace
    this.#bridge = bridge
  }

  startAgent(stage: Stage, plan: Partial<AgentPlan> = {}, environment: Record<string, string> = {}): AgentProcess {
    const whole = {
      apiUrl: stage.apiUrl,
      engineApiUrl: this.#bridge.url,
      stateDirectory: stage.stateDirectory,
      queues: [stage.queue],
      ...plan,
    }
    return new AgentProcess(whole, {
      PATH: process.env.PATH,
      HOME: stage.directory,
      PREFECT_HOME: join(stage.directory, 'prefect'),
      KUBECONFIG: kubeconfig,
      ...environment,
    })
  }

  async createBlock(stage: Stage, data: object): Promise<string> {
    const type = await stage.client.readBlockTypeBySlug('kubernetes-job', never)
    assert.ok(type, 'the server knows the block type')
    const [schema] = await stage.client.readBlockSchemas(type.id, never)
    assert.ok(schema)
    const block = {
      is_anonymous: true,
      block_type_id: type.id,
      block_schema_id: schema.id,
      data: { type: 'kubernetes-job', namespace: this.namespace, ...data },
    }
    return (await stage.client.createBlockDocument(block, never)).id
  }

  /** A command that notes START and END in the stage's ledger, which the pod has as /ledger. */
  async deployCommand(stage: Stage, script: string, settings: object = {}): Promise<Deployment> {
    await chmod(stage.directory, 0o777)
    const volume = { name: 'ledger', hostPath: { path: stage.directory } }
    const block = await this.createBlock(stage, {
      image: busybox,
      env: { LEDGER: '/ledger/ledger', ...fetchedHere },
      customizations: [
        { op: 'add', path: '/spec/template/spec/volumes', value: [volume] },
        {
          op: 'add',
          path: '/spec/template/spec/containers/0/volumeMounts',
          value: [{ name: 'ledger', mountPath: '/ledger' }],
        },
      ],
      ...settings,
    })
    return await stage.deployCommand({ script, deployment: { infrastructure_document_id: block } })
  }

  /** How many Jobs of this run are in the cluster now. */
  async jobsOf(flowRunId: string): Promise<number> {
    return (await this.jobNamesOf(flowRunId)).length
  }

  async jobNamesOf(flowRunId: string): Promise<readonly string[]> {
    const query = { labelSelector: `rigel.io/flow-run-id=${flowRunId}` }
    const list = await this.client.call('GET', `/apis/batch/v1/namespaces/${this.namespace}/jobs`, { query }, never)
    return v.parse(List, list).items.map(({ metadata }) => metadata.name)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#bridge[Symbol.asyncDispose]()
    await this.client.call('DELETE', `/api/v1/namespaces/${this.namespace}`, {}, never)
    await this.client[Symbol.asyncDispose]()
    await this.server[Symbol.asyncDispose]()
  }
}

/** Lets pods reach a server on this machine's loopback. */
export class Bridge implements AsyncDisposable {
  /** Of the same path, as pods have it. */
  readonly url: string
  readonly #close: () => Promise<void>

  static async open(target: URL): Promise<Bridge> {
    const sockets = new Set<Socket>()
    const keep = (socket: Socket) => {
      sockets.add(socket)
      socket.once('close', () => sockets.delete(socket))
      socket.on('error', () => socket.destroy())
      return socket
    }
    const listener = createServer(socket => {
      const upstream = keep(connect(Number(target.port), '127.0.0.1'))
      keep(socket).pipe(upstream).pipe(socket)
    })
    listener.listen(0, process.env.RIGEL_TEST_KUBERNETES_HOST)
    await once(listener, 'listening')
    const bound = listener.address()
    assert.ok(typeof bound === 'object' && bound)
    const { port, address } = bound
    return new Bridge(`http://${address}:${port}${target.pathname}`, async () => {
      listener.close()
      for (const socket of sockets) socket.destroy()
      await once(listener, 'close')
    })
  }

  private constructor(url: string, close: () => Promise<void>) {
    this.url = url
    this.#close = close
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close()
  }
}
