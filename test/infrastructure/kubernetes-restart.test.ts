// Parts of the cluster itself fail under living runs: history that has expired, an API server that is killed, a node that
// is lost. Whatever happens, no run is told as gone that is not.

import assert from 'node:assert/strict'
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { Exit, Handle } from '../../src/infrastructure/infrastructure.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { OwnCluster } from './kubernetes-own-cluster.ts'
import { type KubernetesSubject, unstopped } from './kubernetes-subject.ts'

const options = { ...needs('kubernetes', 'root'), timeout: 600_000 }
/** Pods of a node that is given up go at once, instead of after five minutes. */
const tolerations = ['not-ready', 'unreachable'].map(what => ({
  key: `node.kubernetes.io/${what}`,
  operator: 'Exists',
  effect: 'NoExecute',
  tolerationSeconds: 0,
}))
const impatient = {
  customizations: [
    { op: 'add', path: '/spec/template/spec/tolerations', value: tolerations },
    { op: 'add', path: '/spec/template/spec/terminationGracePeriodSeconds', value: 1 },
  ],
}

interface Waiting {
  readonly handle: Handle
  readonly exit: Promise<Exit>
  isOver: boolean
}

/** Goes on until it is told to, says that it does, and ends. */
const obeys = ({ shared: { folder } }: KubernetesSubject, code: number) =>
  `while [ ! -e ${folder}/go ]; do sleep 0.1; done; touch ${folder}/over-${code}; exit ${code}`

const letGo = ({ shared }: KubernetesSubject) => writeFile(join(shared.folder, 'go'), '')

/** Waits until so many runs have obeyed, whatever the cluster knows of it. */
const over = ({ shared }: KubernetesSubject, count: number) =>
  until(async () => (await readdir(shared.folder)).filter(name => name.startsWith('over-')).length === count)

async function begin(
  subject: KubernetesSubject,
  script: string,
  settings: object = subject.shared.settings,
): Promise<Waiting> {
  const handle = await subject.infrastructure.submit(
    await subject.spec(script, { settings: { ...settings } }),
    unstopped,
  )
  const exit = subject.infrastructure.wait(handle, () => {}, AbortSignal.timeout(300_000))
  const waiting: Waiting = { handle, exit, isOver: false }
  exit
    .finally(() => {
      waiting.isOver = true
    })
    .catch(() => undefined)
  return waiting
}

const codeOf = (exit: Exit) => (exit.kind === 'exited' ? exit.statusCode : `gone: ${exit.reason}`)

/** Waits until so many pods run. */
const running = (subject: KubernetesSubject, count: number) =>
  until(
    async () => {
      const pods = await subject.pods()
      return pods.filter(({ status }) => status?.phase === 'Running').length === count
    },
    { timeoutMs: 90_000, everyMs: 200, what: `${count} pods to run` },
  )

/**
 * As the cluster does with a node that is silent; but where no node is left that answers, as in a cluster of one, it takes the
 * fault to be its own and, unless two of its loops happen to meet the other way round, gives up no pod.
 */
async function giveUpNode({ client }: KubernetesSubject): Promise<void> {
  const taints = [{ key: 'node.kubernetes.io/unreachable', effect: 'NoExecute' }]
  await client.call('PATCH', '/api/v1/nodes/rigel-node', { body: { spec: { taints } } }, unstopped)
}

suite('a cluster whose parts fail', options, () => {
  let cluster: OwnCluster
  before(async () => {
    cluster = await OwnCluster.start()
  })
  after(() => cluster[Symbol.asyncDispose]())

  test('history that has expired (410): all is listed again, and each run ends in the truth', options, async () => {
    await using subject = await cluster.subject()
    const waits = await Promise.all([3, 4, 5].map(code => begin(subject, obeys(subject, code))))
    await running(subject, 3)
    await cluster.do('expire')
    await letGo(subject)
    const exits = await Promise.all(waits.map(({ exit }) => exit))
    assert.deepEqual(exits.map(codeOf), [3, 4, 5])
    assert.equal((await subject.pods()).length, 3, 'no second pod')
    assert.equal((await subject.jobs()).length, 3, 'no second Job')
  })

  test('an API server that is killed while runs end: nothing is said until it is back', options, async () => {
    await using subject = await cluster.subject()
    const waits = await Promise.all([3, 4, 5].map(code => begin(subject, obeys(subject, code))))
    await running(subject, 3)
    await cluster.do('kill', 'kube-apiserver')
    await letGo(subject)
    await over(subject, 3)
    await delay(6_000)
    assert.deepEqual(
      waits.map(({ isOver }) => isOver),
      [false, false, false],
    )
    await cluster.do('run', 'kube-apiserver')
    const exits = await Promise.all(waits.map(({ exit }) => exit))
    assert.deepEqual(exits.map(codeOf), [3, 4, 5])
    assert.equal((await subject.pods()).length, 3, 'no second pod')
  })

  test('a node that is silent for a while: its run goes on and ends as it ends', options, async () => {
    await using subject = await cluster.subject()
    const waiting = await begin(subject, obeys(subject, 3))
    await running(subject, 1)
    await cluster.do('kill', 'kubelet')
    await letGo(subject)
    await over(subject, 1)
    await delay(15_000)
    assert.equal(waiting.isOver, false)
    await cluster.do('run', 'kubelet')
    assert.equal(codeOf(await waiting.exit), 3)
    assert.equal((await subject.pods()).length, 1, 'no second pod')
  })

  test('a node that is lost for good: the run is gone, with the name of the node', options, async t => {
    await using subject = await cluster.subject()
    const waiting = await begin(subject, 'sleep 600', impatient)
    await running(subject, 1)
    await cluster.do('kill', 'kubelet')
    const startMs = performance.now()
    await giveUpNode(subject)
    const exit = await waiting.exit
    t.diagnostic(`told after ${Math.round((performance.now() - startMs) / 1000)} s: ${JSON.stringify(exit)}`)
    await cluster.do('run', 'kubelet')
    assert.match(String(codeOf(exit)), /^gone: .*its node rigel-node does not answer/)
    assert.ok(performance.now() - startMs < 240_000)
  })
})
