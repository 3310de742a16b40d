// Our Jobs beside those that Prefect's own block builds for the same block and run.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { createPatch } from 'rfc6902'
import * as v from 'valibot'
import type { RunSpec } from '../../src/infrastructure/infrastructure.ts'
import { loadCargo } from '../../src/infrastructure/kubernetes-cargo.ts'
import { buildJobPlan, buildPrefectManifest } from '../../src/infrastructure/kubernetes-manifest.ts'
import { readKubernetesSettings } from '../../src/infrastructure/kubernetes-settings.ts'
import { cleanEnvironment, findPrefect } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { type Case, cases, refusals } from './kubernetes-cases.ts'
import { differences } from './kubernetes-differences.ts'

const Answers = v.array(v.object({ manifest: v.optional(v.unknown()), error: v.optional(v.string()) }))

/** The run of a case as Prefect's agent prepares it. */
function prepare({ run = {} }: Case) {
  // The image that Prefect fills in is that of its own version, which a run of an agent has as a label.
  const labels = { 'prefect.io/version': '2.20.25', ...run.labels }
  return { name: 'run', env: {}, command: ['python', '-m', 'prefect.engine'], ...run, labels }
}

function specOf(kase: Case): RunSpec {
  const transitionId = '0a1b2c3d-0000-4000-8000-0000deadbeef'
  return {
    flowRunId: '11111111-2222-4333-8444-555555555555',
    transitionId,
    attempt: 'deadbeef',
    unsetEnv: [],
    workspace: undefined,
    files: {},
    settings: kase.block,
    ...prepare(kase),
  }
}

describe('a Job manifest', needs('prefect2'), () => {
  let answers: ReturnType<typeof askPrefect>
  before(() => {
    answers = askPrefect([...cases, ...refusals])
  })

  test('of every case is what Prefect builds, and ours differs from it only as listed', () => {
    const met = new Set<number>()
    for (const kase of cases) {
      const theirs = answers.get(kase)?.manifest
      assert.ok(theirs, `${kase.what}: ${answers.get(kase)?.error}`)
      const spec = { ...specOf(kase), files: { 'p.json': '{}' } }
      const settings = readKubernetesSettings(spec.settings)
      assert.deepEqual(createPatch(theirs, buildPrefectManifest(spec, settings)), [], kase.what)

      const plan = buildJobPlan(spec, settings)
      loadCargo(plan, spec, [{ path: 'flow.py', content: Buffer.from('x'), isExecutable: false }], 'end')
      for (const { path } of createPatch(theirs, plan.manifest)) {
        const at = differences.findIndex(difference => difference.path.test(path))
        assert.ok(at >= 0, `${kase.what}: ${path} differs, and is not listed`)
        met.add(at)
      }
    }
    const never = differences.filter((_, index) => !met.has(index))
    assert.deepEqual(never, [], 'a difference that is listed is met')
    console.log(`${cases.length} manifests compared with Prefect's, ${differences.length} differences by decision`)
  })

  test('is refused where Prefect refuses it, with the place named', () => {
    for (const kase of refusals) {
      assert.match(answers.get(kase)?.error ?? 'no error', kase.says, `Prefect: ${kase.what}`)
      const build = () => buildPrefectManifest(specOf(kase), readKubernetesSettings(kase.block))
      assert.throws(build, kase.says, kase.what)
    }
  })
})

/** Of all cases at once, for it takes Prefect a while to be imported. */
function askPrefect(asked: readonly Case[]): Map<Case, v.InferOutput<typeof Answers>[number]> {
  const program = fileURLToPath(new URL('./prefect-manifests.py', import.meta.url))
  const child = spawnSync(join(findPrefect('prefect2'), 'bin', 'python'), [program], {
    input: JSON.stringify(asked.map(kase => ({ block: kase.block, run: prepare(kase) }))),
    env: cleanEnvironment(),
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  })
  assert.equal(child.status, 0, child.stderr)
  const told = v.parse(Answers, JSON.parse(child.stdout))
  return new Map(asked.map((kase, index) => [kase, told[index] ?? {}]))
}
