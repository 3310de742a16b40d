// The pure parts of the Kubernetes driver: secrets, cargo, settings, slugs, log lines.

import assert from 'node:assert/strict'
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import * as v from 'valibot'
import { baseJobManifest } from '../../src/infrastructure/base-job-manifest.ts'
import type { RunSpec } from '../../src/infrastructure/infrastructure.ts'
import { loadCargo, ownedBy } from '../../src/infrastructure/kubernetes-cargo.ts'
import { buildRunLabels } from '../../src/infrastructure/kubernetes-labels.ts'
import { LogLineReader } from '../../src/infrastructure/kubernetes-log-lines.ts'
import { buildJobPlan, jobName } from '../../src/infrastructure/kubernetes-manifest.ts'
import { readKubernetesSettings } from '../../src/infrastructure/kubernetes-settings.ts'
import { longestCodeBytes, readTree } from '../../src/infrastructure/kubernetes-tree.ts'
import { makeDirectory } from '../support/directory.ts'

const spec: RunSpec = {
  flowRunId: '11111111-2222-4333-8444-555555555555',
  transitionId: '0a1b2c3d-0000-4000-8000-0000deadbeef',
  attempt: 'deadbeef',
  name: 'My run',
  settings: {},
  command: ['python', '-m', 'prefect.engine'],
  env: {},
  unsetEnv: [],
  labels: {},
  workspace: undefined,
  files: {},
}

function plan(overrides: Partial<RunSpec>) {
  const whole = { ...spec, ...overrides }
  const planned = buildJobPlan(whole, readKubernetesSettings(whole.settings))
  return { planned, cargo: loadCargo(planned, whole, undefined, 'end') }
}

test('no value of a variable stands in the manifest, but for ids and places that are no secret', () => {
  const env = {
    PREFECT_API_URL: 'https://prefect.example.com/api',
    PREFECT_API_KEY: 'pnu_abc',
    PREFECT__FLOW_RUN_ID: spec.flowRunId,
    DB: 'postgres://me:pass@db',
    EMPTY: '',
  }
  const { planned, cargo } = plan({ env, files: { 'parameters.json': '{"password":"hidden"}' } })
  const text = JSON.stringify(planned.manifest)
  assert.doesNotMatch(text, /pnu_abc|postgres|hidden/)
  const [container] = planned.manifest.spec.template.spec.containers
  const secret = `${planned.name}-env-end`
  assert.deepEqual(container.env, [
    { name: 'PREFECT_API_URL', value: 'https://prefect.example.com/api' },
    { name: 'PREFECT_API_KEY', valueFrom: { secretKeyRef: { name: secret, key: 'env-1' } } },
    { name: 'PREFECT__FLOW_RUN_ID', value: spec.flowRunId },
    { name: 'DB', valueFrom: { secretKeyRef: { name: secret, key: 'env-3' } } },
    { name: 'EMPTY', value: '' },
  ])
  const data = v.parse(v.record(v.string(), v.string()), cargo.secret?.data)
  const texts = Object.fromEntries(Object.entries(data).map(([key, value]) => [key, atob(value)]))
  assert.deepEqual(texts, { 'env-1': 'pnu_abc', 'env-3': 'postgres://me:pass@db', 'file-0': '{"password":"hidden"}' })
})

test('an API URL with a password in it is a secret', () => {
  const { planned } = plan({ env: { PREFECT_API_URL: 'https://me:pass@prefect.example.com/api' } })
  assert.doesNotMatch(JSON.stringify(planned.manifest), /pass/)
})

test('a value that names an earlier variable stays, for Kubernetes puts that one in', () => {
  const { planned } = plan({ env: { HOST_NAME: 'h', URL: 'http://$(HOST_NAME)/', LATER: '$(NOBODY)' } })
  const [container] = planned.manifest.spec.template.spec.containers
  assert.deepEqual(
    container.env?.map(({ value }) => value),
    [undefined, 'http://$(HOST_NAME)/', undefined],
  )
})

test('variables of the manifest itself stay as its author wrote them', () => {
  const spec = { parallelism: 1, completions: 1, restartPolicy: 'Never' }
  const containers = [{ name: 'prefect-job', env: [{ name: 'MINE', value: 'open' }] }]
  const template = { spec: { ...spec, containers } }
  const job = { apiVersion: 'batch/v1', kind: 'Job', metadata: { labels: {} }, spec: { template } }
  const { planned, cargo } = plan({ settings: { job } })
  assert.deepEqual(planned.manifest.spec.template.spec.containers[0].env, [{ name: 'MINE', value: 'open' }])
  assert.equal(cargo.secret, undefined)
})

test('variables that do not fit into a Secret are refused with a sentence', () => {
  assert.throws(() => plan({ env: { BIG: 'x'.repeat(1_100_000) } }), /more than the 1000000 that a Secret holds/)
})

test('an owned object names its Job by uid', () => {
  const { planned, cargo } = plan({ env: { A: 'b' } })
  assert.ok(cargo.secret)
  const owned = JSON.parse(JSON.stringify(ownedBy(cargo.secret, { name: planned.name, uid: 'u' }, 'other')))
  assert.equal(owned.metadata.name, `${planned.name}-env-other`)
  assert.deepEqual(owned.metadata.ownerReferences, [
    { apiVersion: 'batch/v1', kind: 'Job', name: planned.name, uid: 'u', controller: true, blockOwnerDeletion: false },
  ])
})

test('a name is the readable slug and the attempt, at most 63 characters', () => {
  assert.equal(jobName('My Run/1!', 'deadbeef'), 'my-run-1-deadbeef')
  assert.equal(jobName('日本', 'deadbeef'), 'prefect-job-deadbeef')
  assert.ok(jobName('x'.repeat(300), 'deadbeef').length <= 63)
})

test('a label that Kubernetes would refuse is left out instead of losing the run', () => {
  assert.deepEqual(buildRunLabels({ 'prefect.io/flow-name': '日本', 'bad/key/with/slashes': 'v', ok: 'yes' }), {
    'bad/key-with-slashes': 'v',
    ok: 'yes',
  })
})

test('time limits are kept by the cluster, and finished Jobs for a day until their end is on record', () => {
  const { planned } = plan({ settings: { job_watch_timeout_seconds: 90, finished_job_ttl: 5 } })
  assert.equal(planned.manifest.spec.template.spec.activeDeadlineSeconds, 90)
  assert.equal(planned.manifest.spec.ttlSecondsAfterFinished, 86_400)
  assert.equal(planned.manifest.metadata.annotations?.['rigel.io/finished-ttl'], '5')
  const kept = plan({}).planned
  assert.equal(kept.manifest.spec.ttlSecondsAfterFinished, undefined)
})

test('a refusal names the field and holds none of its value', () => {
  const settings = { cluster_config: { config: 5, context_name: 'x' }, customizations: 'secret{' }
  assert.throws(
    () => readKubernetesSettings(settings),
    (error: Error) =>
      /cluster_config/.test(error.message) && /customizations/.test(error.message) && !/secret/.test(error.message),
  )
})

test('a tree of code is read with its executables, links followed, without the folder of git', async () => {
  await using directory = await makeDirectory()
  const code = join(directory.path, 'code')
  await mkdir(join(code, 'pkg'), { recursive: true })
  await mkdir(join(code, '.git'))
  await writeFile(join(code, '.git', 'big'), 'x')
  await writeFile(join(code, 'flow.py'), 'print()')
  await writeFile(join(code, 'pkg', 'run.sh'), '#!/bin/sh')
  await chmod(join(code, 'pkg', 'run.sh'), 0o755)
  await symlink('flow.py', join(code, 'link.py'))
  const files = await readTree(code)
  assert.ok(typeof files !== 'string')
  assert.deepEqual(
    files.map(({ path, content, isExecutable }) => [path, content.toString(), isExecutable]),
    [
      ['flow.py', 'print()', false],
      ['link.py', 'print()', false],
      ['pkg/run.sh', '#!/bin/sh', true],
    ],
  )
  await writeFile(join(code, 'large'), Buffer.alloc(longestCodeBytes))
  const tooLarge = await readTree(code)
  assert.ok(typeof tooLarge === 'string')
  assert.match(tooLarge, /larger than the 900 KiB/)
})

test('log lines are put together from any chunks, with their times', () => {
  const stream =
    '2026-11-24T04:26:03.445475723Z one\n2026-11-24T04:26:04Z zwölf\r\n2026-11-24T04:26:05.5+01:00 \nno time\n2026-11-24T04:26:06Z last'
  for (const size of [1, 3, 7, 1000]) {
    const bytes = Buffer.from(stream)
    const reader = new LogLineReader()
    const lines = []
    for (let at = 0; at < bytes.length; at += size) lines.push(...reader.push(bytes.subarray(at, at + size)))
    lines.push(...reader.end())
    assert.deepEqual(
      lines.map(({ time, text }) => `${time}|${text}`),
      [
        '1795494363.445475723|one',
        '1795494364.000000000|zwölf',
        '1795490765.500000000|',
        '|no time',
        '1795494366.000000000|last',
      ],
    )
  }
})

test('a line without end is split, never within a character, and loses nothing', () => {
  const reader = new LogLineReader()
  const text = 'ü'.repeat(1_200_000)
  const bytes = Buffer.from(`2026-11-24T04:26:03Z ${text}\n`)
  const lines = []
  for (let at = 0; at < bytes.length; at += 65_537) lines.push(...reader.push(bytes.subarray(at, at + 65_537)))
  assert.ok(lines.length >= 2)
  assert.equal(lines.map(line => line.text).join(''), text)
  assert.deepEqual([...new Set(lines.map(line => line.time))], ['1795494363.000000000'])
})

test('a pod that fetches its code has what it needs in the Secret, and a user that is not root', () => {
  const recipe = {
    from: { kind: 'block', slug: 's3', data: { aws_secret_access_key: 'hidden' }, path: '-odd path' },
  } as const
  const env = { RIGEL_PYTHON: 'python9', RIGEL_STORAGE_MAX_FILES: '9', AWS_SECRET_ACCESS_KEY: 'also', HOME: '/root' }
  const job = structuredClone(baseJobManifest)
  Object.assign(Object(job).spec.template.spec, { securityContext: { runAsUser: 0 } })
  const whole = { ...spec, env, settings: { job }, startFolder: 'inner/folder' }
  const planned = buildJobPlan(whole, readKubernetesSettings(whole.settings))
  const cargo = loadCargo(planned, whole, { recipe, image: 'rigel:1' }, 'end')
  const pod = planned.manifest.spec.template.spec
  assert.doesNotMatch(JSON.stringify(planned.manifest), /hidden|also/)
  const data = v.parse(v.record(v.string(), v.string()), cargo.secret?.data)
  assert.deepEqual(JSON.parse(atob(data.from ?? '')), {
    block_type_slug: 's3',
    data: { aws_secret_access_key: 'hidden' },
  })
  assert.equal(cargo.code, undefined)
  const [fetching] = pod.initContainers ?? []
  assert.deepEqual(fetching?.args, [
    'fetch',
    '/rigel/fetched/code',
    '--block-file',
    '/rigel/from/from.json',
    '--path=-odd path',
    '--share',
  ])
  assert.deepEqual(
    fetching?.env?.map(({ name }) => name),
    [
      'RIGEL_STORAGE_MAX_FILES',
      'AWS_SECRET_ACCESS_KEY',
      'HOME',
      'TMPDIR',
      'PREFECT_HOME',
      'RIGEL_STATE_DIR',
      'RIGEL_CACHE_DIR',
    ],
  )
  assert.equal(Object(fetching?.securityContext).runAsUser, 10_001)
  const mount = { name: 'rigel-code', mountPath: '/rigel/workspace', subPath: 'code', readOnly: true }
  assert.deepEqual(pod.containers[0].volumeMounts, [mount])
  assert.equal(pod.containers[0].workingDir, '/rigel/workspace/inner/folder')
})
