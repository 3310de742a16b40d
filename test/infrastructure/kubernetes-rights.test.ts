// A namespaced Role is enough, each missing right switches off one thing and is named once, and the manifests of config/
// are taken by a real API server, under the strictest rules for pods.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import test, { suite } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { KubeConfig } from '@kubernetes/client-node'
import * as v from 'valibot'
import { parseAllDocuments } from 'yaml'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { type KubernetesSubject, kubeconfig, makeKubernetesSubject, unstopped } from './kubernetes-subject.ts'

const options = { ...needs('kubernetes'), timeout: 240_000 }
const manifests = fileURLToPath(new URL('../../config/kubernetes', import.meta.url))

const Token = v.object({ status: v.object({ token: v.string() }) })
const Rule = v.looseObject({ resources: v.array(v.string()), verbs: v.array(v.string()) })
const Role = v.looseObject({ kind: v.literal('Role'), metadata: v.object({ name: v.string() }), rules: v.array(Rule) })

/** The Role of config/kubernetes/, less some rights such as `watch pods`. */
async function readRole(without: readonly string[]): Promise<v.InferOutput<typeof Role>> {
  const text = await readFile(join(manifests, 'manifests', 'rights.yaml'), 'utf8')
  const documents = parseAllDocuments(text).map(document => document.toJS())
  const role = v.parse(
    Role,
    documents.find(({ kind }) => kind === 'Role'),
  )
  const rules = role.rules.flatMap(rule =>
    rule.resources.map(resource => ({
      ...rule,
      resources: [resource],
      verbs: rule.verbs.filter(verb => !without.includes(`${verb} ${resource}`)),
    })),
  )
  return { ...role, rules: rules.filter(({ verbs }) => verbs.length > 0) }
}

/** The variables of an agent that has the Role's rights in the subject's namespace, and no other. */
async function asAgent(subject: KubernetesSubject, without: readonly string[] = []): Promise<Record<string, string>> {
  const { client, namespace, runsDirectory } = subject
  const name = 'rigel-agent'
  const create = (path: string, body: unknown) => client.call('POST', path, { body }, unstopped)
  await create(`/api/v1/namespaces/${namespace}/serviceaccounts`, { metadata: { name } })
  const rbac = `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}`
  await create(`${rbac}/roles`, await readRole(without))
  await create(`${rbac}/rolebindings`, {
    metadata: { name },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name },
    subjects: [{ kind: 'ServiceAccount', name, namespace }],
  })
  const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${name}/token`
  const { token } = v.parse(Token, await create(path, { spec: { expirationSeconds: 3600 } })).status
  const config = new KubeConfig()
  config.loadFromFile(kubeconfig)
  const cluster = config.getCurrentCluster()
  const text = JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'agent',
    clusters: [{ name: 'c', cluster: { server: cluster?.server, 'certificate-authority-data': cluster?.caData } }],
    users: [{ name: 'agent', user: { token } }],
    contexts: [{ name: 'agent', context: { cluster: 'c', user: 'agent' } }],
  })
  const file = join(runsDirectory, 'agent.kubeconfig')
  await writeFile(file, text, { mode: 0o600 })
  return { KUBECONFIG: file }
}

/** Rights that were named as missing. */
function missingRights({ log }: KubernetesSubject): string[] {
  return log.flatMap(line => {
    const entry = JSON.parse(line)
    return entry.msg === 'the agent lacks a right in the cluster' ? [String(entry.right)] : []
  })
}

const losses: readonly (readonly [string, 'ends' | 'no code', readonly string[]])[] = [
  ['watch jobs', 'ends', ['words']],
  ['watch pods', 'ends', ['words']],
  ['get pods/log', 'ends', []],
  ['list events', 'ends', ['words']],
  ['delete pods', 'ends', ['words']],
  ['list pods', 'no code', []],
]

async function kubectl(...args: readonly string[]): Promise<string> {
  const program = process.env.RIGEL_TEST_KUBECTL ?? 'kubectl'
  const { stdout } = await promisify(execFile)(program, args, { env: { KUBECONFIG: kubeconfig, HOME: '/nonexistent' } })
  return stdout
}
suite('the rights of an agent', { concurrency: 4, timeout: 1_200_000 }, () => {
  test(
    'the Role of config/kubernetes is enough for all of a run: start, output, end, kill, release',
    options,
    async () => {
      await using subject = await makeKubernetesSubject()
      const driver = subject.startAnew(await asAgent(subject))
      const spec = await subject.spec('echo $KEY; exit 3', {
        env: { KEY: 'value' },
        settings: { finished_job_ttl: 600 },
        workspace: manifests,
      })
      const handle = await driver.submit(spec, unstopped)
      const lines: string[] = []
      const exit = await driver.wait(handle, more => void lines.push(...more), AbortSignal.timeout(60_000))
      assert.equal(exit.kind === 'exited' && exit.statusCode, 3)
      assert.deepEqual(lines, ['value'])
      await driver.release(handle, unstopped)
      const killed = await driver.submit(await subject.spec('sleep 600'), unstopped)
      const ended = driver.wait(killed, () => {}, AbortSignal.timeout(60_000))
      await driver.kill(killed, 1, unstopped)
      await ended
      // Only the cluster's own id is out of reach, for which the substitute stands.
      assert.deepEqual(missingRights(subject), ['get namespaces'])
    },
  )

  for (const [right, how, output] of losses) {
    test(
      `without the right to ${right} a run still ends in the truth, and the right is named once`,
      options,
      async () => {
        await using subject = await makeKubernetesSubject()
        const driver = subject.startAnew(
          await asAgent(subject, [right, ...(right === 'list pods' ? ['watch pods'] : [])]),
        )
        for (const code of [0, 3]) {
          const handle = await driver.submit(await subject.spec(`echo words; exit ${code}`), unstopped)
          const lines: string[] = []
          const exit = await driver.wait(handle, more => void lines.push(...more), AbortSignal.timeout(90_000))
          const expected = how === 'no code' && code !== 0 ? undefined : code
          assert.equal(exit.kind === 'exited' ? exit.statusCode : 'vanished', expected)
          assert.deepEqual(lines, output)
          await driver.kill(handle, 1, unstopped)
        }
        const named = missingRights(subject).filter(name => name === right)
        assert.ok(named.length <= 1, 'named once')
        if (!['list events', 'delete pods'].includes(right)) assert.equal(named.length, 1)
      },
    )
  }

  for (const right of ['create jobs', 'create secrets', 'create configmaps', 'patch jobs']) {
    test(`without the right to ${right} a run is refused with a sentence that says so`, options, async () => {
      await using subject = await makeKubernetesSubject()
      const driver = subject.startAnew(await asAgent(subject, [right]))
      const spec = await subject.spec('true', { env: { KEY: 'secret-value' }, workspace: manifests })
      await assert.rejects(driver.submit(spec, unstopped), (error: Error) => {
        const [verb = '', resource = ''] = right.split(' ')
        assert.match(error.message, new RegExp(`cannot ${verb} resource "${resource}"`))
        assert.doesNotMatch(error.message, /secret-value/)
        return true
      })
      await until(async () => (await subject.list('jobs')).length === 0, { timeoutMs: 20_000 })
    })
  }

  test(
    'the manifests of config/kubernetes are taken as they are, plain and by kustomize, under the restricted rules',
    options,
    async () => {
      await using subject = await makeKubernetesSubject()
      const { client, namespace } = subject
      const labels = {
        'pod-security.kubernetes.io/enforce': 'restricted',
        'pod-security.kubernetes.io/enforce-version': 'latest',
      }
      await client.call('PATCH', `/api/v1/namespaces/${namespace}`, { body: { metadata: { labels } } }, unstopped)
      const plain = await kubectl('apply', '-n', namespace, '--validate=strict', '-f', join(manifests, 'manifests'))
      assert.match(plain, /deployment.apps\/rigel-agent created/)
      // What is there already and is not changed by kustomize is the same.
      const kustomized = await kubectl('apply', '-n', namespace, '--validate=strict', '-k', manifests)
      assert.match(kustomized, /deployment.apps\/rigel-agent unchanged/)
      assert.doesNotMatch(kustomized, /created|configured/)
      await until(
        async () => {
          const pods = await subject.list('pods')
          return pods.length === 1
        },
        { timeoutMs: 30_000, what: 'the pod of the Deployment, admitted' },
      )
    },
  )
})
