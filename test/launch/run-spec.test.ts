import assert from 'node:assert/strict'
import test from 'node:test'

import { type InfrastructureBlock, readInfrastructureBlock } from '../../src/launch/infrastructure-block.ts'
import { formatUtc } from '../../src/launch/labels.ts'
import { buildRunSpec, type LaunchInput } from '../../src/launch/run-spec.ts'

const flowRunId = '22222222-2222-4222-8222-222222222222'

function makeInput({ slug, data, ...rest }: Partial<LaunchInput> & { slug?: string; data?: Record<string, unknown> }) {
  const type = slug ?? 'process'
  const block: InfrastructureBlock = readInfrastructureBlock(
    {
      id: '11111111-1111-4111-8111-111111111111',
      name: 'base',
      is_anonymous: false,
      data: data ?? {},
      block_type_id: null,
      block_schema_id: null,
      block_type: { name: type, slug: type },
      block_schema: null,
    },
    {},
  )
  const input: LaunchInput = {
    attempt: { flowRunId, attempt: '89abcdef', transitionId: '33333333-3333-4333-8333-333389abcdef' },
    flowRun: { id: flowRunId, name: 'brave-otter', parameters: { day: 'Monday' } },
    deployment: {
      name: 'nightly',
      updated: '2026-11-22T22:54:41.154234+02:00',
      entrypoint: 'flow.py:main',
      infra_overrides: null,
      job_variables: null,
    },
    flowName: 'report',
    block,
    workspace: '/var/space',
    steps: undefined,
    found: 'missing',
    baseEnvironment: { PREFECT_API_URL: 'http://127.0.0.1:4200/api' },
    python: { setting: undefined, virtualEnv: undefined },
    engineShim: '# shim',
    prefectVersion: '2.20.25',
    enhancedCancellation: true,
    ...rest,
  }
  return input
}

function withEntrypoint(entrypoint: string): Pick<LaunchInput, 'deployment'> {
  return { deployment: { ...makeInput({}).deployment, entrypoint } }
}

const shim = { in: 'files', path: 'engine-shim.py' }

test('a Python flow as a process is started through the shim, with the workspace told by its environment', () => {
  const { type, spec, reports } = buildRunSpec(makeInput({}))
  assert.equal(type, 'process')
  assert.equal(reports, 'engine')
  assert.deepEqual(spec, {
    flowRunId,
    attempt: '89abcdef',
    transitionId: '33333333-3333-4333-8333-333389abcdef',
    name: 'brave-otter',
    settings: {},
    command: ['python3', shim],
    env: {
      PREFECT_API_URL: 'http://127.0.0.1:4200/api',
      PREFECT__FLOW_RUN_ID: flowRunId,
      RIGEL_WORKSPACE: { in: 'workspace', path: '' },
    },
    unsetEnv: [],
    labels: {
      'prefect.io/flow-run-id': flowRunId,
      'prefect.io/flow-run-name': 'brave-otter',
      'prefect.io/version': '2.20.25',
      'prefect.io/deployment-name': 'nightly',
      'prefect.io/deployment-updated': '2026-11-22T20:54:41.154234Z',
      'prefect.io/flow-name': 'report',
    },
    workspace: '/var/space',
    files: { 'engine-shim.py': '# shim' },
  })
})

test('an executable gets its parameters in a file, never in its arguments or environment', () => {
  const { spec, reports } = buildRunSpec(makeInput({ ...withEntrypoint('./job.sh --daily'), found: 'executable' }))
  assert.equal(reports, 'agent')
  assert.deepEqual(spec.command, [{ in: 'workspace', path: 'job.sh' }, '--daily'])
  assert.deepEqual(spec.env.RIGEL_PARAMETERS_FILE, { in: 'files', path: 'parameters.json' })
  assert.deepEqual(spec.files, { 'parameters.json': '{"day":"Monday"}' })
  assert.doesNotMatch(JSON.stringify([spec.command, spec.env]), /Monday/)
})

test('without a workspace nothing is looked for in it', () => {
  const { spec } = buildRunSpec(makeInput({ ...withEntrypoint('job'), found: 'executable', workspace: undefined }))
  assert.deepEqual(spec.command, ['job'])
  assert.equal(spec.env.RIGEL_WORKSPACE, undefined)
})

const reporters: [data: Record<string, unknown>, reports: string, files: string[]][] = [
  [{ command: ['sh', '-c', 'exit 0'] }, 'command', ['parameters.json']],
  [{ command: ['python', '-m', 'prefect.engine'] }, 'engine', []],
  [{ command: [] }, 'engine', ['engine-shim.py']],
]

for (const [data, reports, files] of reporters) {
  test(`a process block with ${JSON.stringify(data)} is reported by the ${reports}`, () => {
    const launch = buildRunSpec(makeInput({ data }))
    assert.equal(launch.reports, reports)
    assert.deepEqual(Object.keys(launch.spec.files), files)
    if (data.command && reports === 'command') assert.deepEqual(launch.spec.command, data.command)
  })
}

const containers: [what: string, input: Parameters<typeof makeInput>[0], command: unknown][] = [
  ['fetches its code by itself', { workspace: undefined }, ['prefect', 'flow-run', 'execute']],
  [
    'fetches its code by itself, without the runner',
    { workspace: undefined, enhancedCancellation: false },
    ['python', '-m', 'prefect.engine'],
  ],
  ['is brought its code', {}, ['python', shim]],
  [
    'is brought its code, the agent has a Python',
    { python: { setting: '/x/python', virtualEnv: '/v' } },
    ['python', shim],
  ],
  ['names its Python', { data: { env: { RIGEL_PYTHON: '/opt/py' } } }, ['/opt/py', shim]],
  ['has a command', { data: { command: ['sh', '-c', 'true'] } }, ['sh', '-c', 'true']],
]

for (const slug of ['docker-container', 'kubernetes-job']) {
  for (const [what, input, command] of containers) {
    test(`${slug} that ${what}`, () => {
      const { type, spec } = buildRunSpec(makeInput({ ...input, slug }))
      assert.equal(type, slug)
      assert.deepEqual(spec.command, command)
      assert.equal('engine-shim.py' in spec.files, JSON.stringify(command).includes('engine-shim.py'))
    })
  }
}

const pythons: [what: string, input: Parameters<typeof makeInput>[0], python: string][] = [
  [
    'the block first',
    { data: { env: { RIGEL_PYTHON: '/block' } }, python: { setting: '/s', virtualEnv: '/v' } },
    '/block',
  ],
  ["then the agent's setting", { python: { setting: '/s', virtualEnv: '/v' } }, '/s'],
  ['then the virtual environment', { python: { setting: undefined, virtualEnv: '/v/' } }, '/v/bin/python'],
  ["the block's own before the agent's", { data: { env: { VIRTUAL_ENV: '/w' } } }, '/w/bin/python'],
  ['at last python3', {}, 'python3'],
]

for (const [what, input, python] of pythons) {
  test(`the Python of a process: ${what}`, () => {
    assert.equal(buildRunSpec(makeInput(input)).spec.command[0], python)
  })
}

for (const overrides of [{ 'env.RIGEL_PYTHON': '/j' }, { env: { RIGEL_PYTHON: '/j' } }, { RIGEL_PYTHON: '/j' }]) {
  test(`a deployment without a block names its Python by ${JSON.stringify(overrides)}`, () => {
    const deployment = { ...makeInput({}).deployment, infra_overrides: overrides }
    const block = readInfrastructureBlock(undefined, overrides)
    assert.equal(buildRunSpec(makeInput({ deployment, block })).spec.command[0], '/j')
  })
}

test('the block has the last word on the environment, and a null unsets', () => {
  const env = {
    PREFECT_API_URL: 'http://other/api',
    PREFECT_API_KEY: null,
    PREFECT__FLOW_RUN_ID: 'mine',
    RIGEL_WORKSPACE: 'x',
  }
  const { spec } = buildRunSpec(
    makeInput({
      data: { env },
      baseEnvironment: { PREFECT_API_URL: 'http://a/api', PREFECT_API_KEY: 'k', HOME: '/h' },
    }),
  )
  assert.deepEqual(spec.env, {
    HOME: '/h',
    PREFECT_API_URL: 'http://other/api',
    PREFECT__FLOW_RUN_ID: 'mine',
    RIGEL_WORKSPACE: { in: 'workspace', path: '' },
  })
  assert.deepEqual(spec.unsetEnv, ['PREFECT_API_KEY'])
})

for (const env of [{ 'A=B': '1' }, { '': '1' }, { 'A\0': '1' }, { A: 'x\0secret' }]) {
  test(`a variable that no process can have is refused: ${JSON.stringify(Object.keys(env))}`, () => {
    assert.throws(
      () => buildRunSpec(makeInput({ data: { env } })),
      (error: unknown) =>
        error instanceof Error && /Environment variable/.test(error.message) && !/secret/.test(error.message),
    )
  })
}

test("the block's labels lie on top of Prefect's, and Docker gets the block's in its own form", () => {
  const data = { labels: { 'foo.io/bar': '1', 'prefect.io/flow-name': 'x', plain: '2' }, name: 'own name' }
  const process = buildRunSpec(makeInput({ data })).spec
  assert.equal(process.name, 'own name')
  assert.equal(process.labels['prefect.io/flow-name'], 'x')
  assert.equal(process.labels['foo.io/bar'], '1')
  const docker = buildRunSpec(makeInput({ data, slug: 'docker-container' })).spec.labels
  assert.equal(docker['io.foo.bar'], '1')
  assert.equal(docker['io.prefect.flow-name'], 'x')
  assert.equal(docker['prefect.io/flow-name'], 'report')
  assert.equal(docker.plain, '2')
  assert.equal(docker['io.prefect.version'], '2.20.25')
})

test('a flow name that was not read and a deployment that was never updated leave their labels out', () => {
  const deployment = { ...makeInput({}).deployment, updated: null }
  const { labels } = buildRunSpec(makeInput({ deployment, flowName: undefined })).spec
  assert.equal('prefect.io/flow-name' in labels, false)
  assert.equal('prefect.io/deployment-updated' in labels, false)
})

for (const [from, to] of [
  ['2026-11-22T20:54:41.154234+00:00', '2026-11-22T20:54:41.154234Z'],
  ['2026-11-22T20:54:41.15Z', '2026-11-22T20:54:41.150000Z'],
  ['2026-11-22T20:54:41+00:00', '2026-11-22T20:54:41Z'],
  ['2026-01-01T00:30:00.5+01:00', '2025-12-31T23:30:00.500000Z'],
  ['not a time', 'not a time'],
] as const) {
  test(`the time ${from} is written as ${to}`, () => {
    assert.equal(formatUtc(from), to)
  })
}

test('the engine is told which pull steps the agent has done when some are left, and nothing when none is', () => {
  const done = { taken: 2, outputs: [{ id: 'clone', output: { directory: 'repo' } }] }
  const told = (left: number) => buildRunSpec(makeInput({ steps: { ...done, left } })).spec.env.RIGEL_PULLED_STEPS
  assert.equal(told(0), undefined)
  assert.equal(told(1), '{"taken":2,"outputs":[{"directory":"repo","id":"clone"}]}')
})

test('a program whose code needs steps of the engine is refused', () => {
  const steps = { taken: 1, outputs: [{ id: undefined, output: { directory: 'repo' } }], left: 1 }
  assert.throws(() => buildRunSpec(makeInput({ ...withEntrypoint('./job.sh'), found: 'executable', steps })), {
    name: 'LaunchError',
    message: /can only be run by Prefect's engine/,
  })
})
