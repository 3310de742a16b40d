// A cluster of a test's own, whose parts it may kill: the usual one serves other tests at the same time.

import { execFile } from 'node:child_process'
import { dirname, join } from 'node:path'
import process from 'node:process'
import { promisify } from 'node:util'
import { type KubernetesSubject, kubeconfig, makeKubernetesSubject, type SubjectOptions } from './kubernetes-subject.ts'

const run = promisify(execFile)
const engines = join(import.meta.dirname, '..', 'support', 'engines')
const environment = {
  ...process.env,
  // Beside the usual one, whose programs it shares.
  RIGEL_ENGINES: dirname(dirname(kubeconfig)),
  RIGEL_K8S_NAME: 'own',
  RIGEL_K8S_PORT: '16444',
  RIGEL_K8S_NET: '172.29',
}

type Component = 'kube-apiserver' | 'kubelet'
type Action = readonly ['kill' | 'run', Component] | readonly ['expire' | 'stop']

export class OwnCluster implements AsyncDisposable {
  readonly #kubeconfig: string

  static async start(): Promise<OwnCluster> {
    const told = await script('kubernetes.sh', 'start')
    const kubeconfig = /^KUBECONFIG=(.*)$/m.exec(told)?.[1]
    if (kubeconfig === undefined) throw new Error(`the cluster has not told its kubeconfig: ${told}`)
    await script('kubernetes.sh', 'load', (await script('images.sh', 'archive', 'busybox')).trim())
    return new OwnCluster(kubeconfig)
  }

  private constructor(kubeconfig: string) {
    this.#kubeconfig = kubeconfig
  }

  subject(options: SubjectOptions = {}): Promise<KubernetesSubject> {
    return makeKubernetesSubject({ kubeconfig: this.#kubeconfig, ...options })
  }

  /** Returns once it is done: `run` and `expire` when the component answers again. */
  async do(...action: Action): Promise<void> {
    await script('kubernetes.sh', ...action)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.do('stop')
  }
}

async function script(name: string, ...args: readonly string[]): Promise<string> {
  const { stdout } = await run(join(engines, name), args, { env: environment, maxBuffer: 16_777_216 })
  return stdout
}
