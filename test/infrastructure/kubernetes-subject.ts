// What the tests of the Kubernetes driver share: drivers on the test cluster, each test in a namespace of its own, and the
// cluster itself as the judge of what was started. Everything made here is gone when its owner's block ends.

import { randomBytes, randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { KubeConfig } from '@kubernetes/client-node'
import * as v from 'valibot'
import type { RunSpec, Value } from '../../src/infrastructure/infrastructure.ts'
import {
  createKubernetesInfrastructure,
  type KubernetesInfrastructure,
  type KubernetesOptions,
} from '../../src/infrastructure/kubernetes.ts'
import { ClusterClient } from '../../src/infrastructure/kubernetes-client.ts'
import { type JobView, type PodView, readJob, readPod } from '../../src/infrastructure/kubernetes-objects.ts'
import type { WatchTimes } from '../../src/infrastructure/kubernetes-watch.ts'
import { createLogger, type Logger } from '../../src/logger.ts'
import { until } from '../support/until.ts'
import type { Subject } from './contract.ts'

/** Only to be used where `needs('kubernetes')` lets you. */
export const kubeconfig = process.env.RIGEL_TEST_KUBECONFIG ?? ''
export const busybox = 'rigel.test/busybox:1'
export const unstopped = new AbortController().signal

const List = v.object({ items: v.nullish(v.array(v.unknown()), []) })

export interface KubernetesSubject extends Subject {
  readonly infrastructure: KubernetesInfrastructure
  startAnew(
    environment?: Readonly<Record<string, string>>,
    readSettings?: KubernetesOptions['readSettings'],
  ): KubernetesInfrastructure
  /** A try of this subject's own agent to run `script` by `sh -c`. Its folder is made. */
  spec(script: string, overrides?: Partial<RunSpec> & { words?: readonly Value[] }): Promise<RunSpec>
  /** The test cluster, reached directly. */
  readonly client: ClusterClient
  readonly namespace: string
  readonly runsDirectory: string
  /** First 8 hex digits of this subject's transition ids. */
  readonly agentPrefix: string
  /** What the drivers have logged, as JSON lines. */
  readonly log: string[]
  jobs(): Promise<readonly JobView[]>
  pods(): Promise<readonly PodView[]>
  /** All objects of a kind in the subject's namespace. */
  list(kind: 'jobs' | 'pods' | 'secrets' | 'configmaps'): Promise<readonly unknown[]>
}

export interface SubjectOptions {
  /** Of another cluster than the usual one. */
  readonly kubeconfig?: string
  readonly environment?: Readonly<Record<string, string>>
  readonly settings?: Readonly<Record<string, unknown>>
  readonly times?: Partial<WatchTimes>
}

export async function makeKubernetesSubject(options: SubjectOptions = {}): Promise<KubernetesSubject> {
  const stateDirectory = await mkdtemp(join(tmpdir(), 'rigel-kubernetes-'))
  const runsDirectory = join(stateDirectory, 'runs')
  await mkdir(runsDirectory)
  const path = options.kubeconfig ?? kubeconfig
  const client = openClient(path)
  const namespace = await makeNamespace(client)
  const agentPrefix = randomBytes(4).toString('hex')
  const log: string[] = []
  const logger: Logger = createLogger({
    level: 'DEBUG',
    pretty: false,
    destination: { write: line => void log.push(line) },
  })
  const drivers: KubernetesInfrastructure[] = []
  const settings = { image: busybox, namespace, ...options.settings }
  const make = (
    environment = options.environment ?? { KUBECONFIG: path },
    readSettings?: KubernetesOptions['readSettings'],
  ) => {
    const driver = createKubernetesInfrastructure({
      runsDirectory,
      logger,
      environment: { HOME: runsDirectory, ...environment },
      ...(options.times ? { times: options.times } : {}),
      ...(readSettings ? { readSettings } : {}),
    })
    drivers.push(driver)
    return driver
  }
  const infrastructure = make()
  const prepare = async (flowRunId: string) => {
    await mkdir(join(runsDirectory, flowRunId), { mode: 0o700 })
  }
  const list = async (kind: string): Promise<readonly unknown[]> => {
    const group = kind === 'jobs' ? '/apis/batch/v1' : '/api/v1'
    return v.parse(List, await client.call('GET', `${group}/namespaces/${namespace}/${kind}`, {}, unstopped)).items
  }
  return {
    infrastructure,
    startAnew: make,
    prepare,
    settings,
    client,
    namespace,
    runsDirectory,
    agentPrefix,
    log,
    list,
    jobs: async () => (await list('jobs')).map(readJob).filter(job => job !== undefined),
    pods: async () => (await list('pods')).map(readPod).filter(pod => pod !== undefined),
    spec: async (script, { words = [], ...overrides } = {}) => {
      const transitionId = agentPrefix + randomUUID().slice(8)
      const flowRunId = randomUUID()
      await prepare(flowRunId)
      return {
        flowRunId,
        transitionId,
        attempt: transitionId.slice(-8),
        name: 'test run',
        command: ['sh', '-c', script, 'sh', ...words],
        env: {},
        unsetEnv: [],
        labels: {},
        workspace: undefined,
        files: {},
        ...overrides,
        settings: { ...settings, ...overrides.settings },
      }
    },
    [Symbol.asyncDispose]: async () => {
      for (const driver of drivers) await driver[Symbol.asyncDispose]()
      await client.call('DELETE', `/api/v1/namespaces/${namespace}`, {}, AbortSignal.timeout(20_000))
      await client[Symbol.asyncDispose]()
      await rm(stateDirectory, { recursive: true, force: true })
    },
  }
}

/** As an administrator of the test cluster. */
export function openClient(path = kubeconfig): ClusterClient {
  const config = new KubeConfig()
  config.loadFromFile(path)
  return new ClusterClient(config)
}

/** With its service account, without which no pod is admitted. */
export async function makeNamespace(client: ClusterClient): Promise<string> {
  const name = `rigel-test-${randomBytes(5).toString('hex')}`
  await client.call('POST', '/api/v1/namespaces', { body: { metadata: { name } } }, unstopped)
  await until(() => client.call('GET', `/api/v1/namespaces/${name}/serviceaccounts/default`, {}, unstopped), {
    timeoutMs: 30_000,
    everyMs: 100,
    what: 'the service account of a new namespace',
  })
  return name
}
