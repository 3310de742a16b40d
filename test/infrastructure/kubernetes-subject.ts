// What the tests of the Kubernetes driver share: drivers on the test cluster, each test in a namespace of its own, and the
// cluster itself as the judge of what was started. Everything made here is gone when its owner's block ends.

import { randomBytes } from 'node:crypto'
import process from 'node:process'
import { KubeConfig } from '@kubernetes/client-node'
import * as v from 'valibot'
import {
  createKubernetesInfrastructure,
  type KubernetesInfrastructure,
  type KubernetesOptions,
} from '../../src/infrastructure/kubernetes.ts'
import { ClusterClient } from '../../src/infrastructure/kubernetes-client.ts'
import { type JobView, type PodView, readJob, readPod } from '../../src/infrastructure/kubernetes-objects.ts'
import type { WatchTimes } from '../../src/infrastructure/kubernetes-watch.ts'
import { until } from '../support/until.ts'
import type { Subject } from './contract.ts'
import { makeRunSubject, type RunSubject } from './run-subject.ts'

/** Only to be used where `needs('kubernetes')` lets you. */
export const kubeconfig = process.env.RIGEL_TEST_KUBECONFIG ?? ''
export const busybox = 'rigel.test/busybox:1'
export const unstopped = new AbortController().signal

const pod = '/spec/template/spec'
const List = v.object({ items: v.nullish(v.array(v.unknown()), []) })

export interface KubernetesSubject extends Subject, RunSubject {
  readonly infrastructure: KubernetesInfrastructure
  startAnew(
    environment?: Readonly<Record<string, string>>,
    readSettings?: KubernetesOptions['readSettings'],
  ): KubernetesInfrastructure
  /** The test cluster, reached directly. */
  readonly client: ClusterClient
  readonly namespace: string
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
  const path = options.kubeconfig ?? kubeconfig
  const client = openClient(path)
  const namespace = await makeNamespace(client)
  const base = await makeRunSubject({ image: busybox, namespace, ...options.settings })
  const { runsDirectory, sharedFolder: folder, logger } = base
  const drivers: KubernetesInfrastructure[] = []
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
  const list = async (kind: string): Promise<readonly unknown[]> => {
    const group = kind === 'jobs' ? '/apis/batch/v1' : '/api/v1'
    return v.parse(List, await client.call('GET', `${group}/namespaces/${namespace}/${kind}`, {}, unstopped)).items
  }
  return {
    ...base,
    infrastructure: make(),
    startAnew: make,
    client,
    namespace,
    shared: {
      folder,
      settings: {
        customizations: [
          { op: 'add', path: `${pod}/volumes`, value: [{ name: 'shared', hostPath: { path: folder } }] },
          { op: 'add', path: `${pod}/containers/0/volumeMounts`, value: [{ name: 'shared', mountPath: folder }] },
        ],
      },
    },
    list,
    jobs: async () => (await list('jobs')).map(readJob).filter(job => job !== undefined),
    pods: async () => (await list('pods')).map(readPod).filter(pod => pod !== undefined),
    [Symbol.asyncDispose]: async () => {
      for (const driver of drivers) await driver[Symbol.asyncDispose]()
      await client.call('DELETE', `/api/v1/namespaces/${namespace}`, {}, AbortSignal.timeout(20_000))
      await client[Symbol.asyncDispose]()
      await base[Symbol.asyncDispose]()
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
