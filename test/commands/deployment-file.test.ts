import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type DeploymentPlan, readDeploymentFile } from '../../src/commands/deployment-file.ts'
import { readPairs } from '../../src/commands/deployment-run.ts'
import { UserError } from '../../src/errors.ts'

function read(...lines: string[]): DeploymentPlan {
  const plans = readDeploymentFile(['flow: f', 'name: n', 'entrypoint: a.py:f', ...lines].join('\n'), 'd.yaml', '/here')
  const [plan] = plans
  assert.ok(plan && plans.length === 1)
  return plan
}

test('what a short deployment leaves out has a sane value', () => {
  const { flow, body, storage, infrastructure } = read()
  assert.equal(flow, 'f')
  assert.partialDeepStrictEqual(body, {
    name: 'n',
    path: '/here',
    work_queue_name: 'default',
    work_pool_name: null,
    parameters: {},
    schedules: [],
    enforce_parameter_schema: false,
  })
  assert.equal(storage, undefined)
  assert.equal(infrastructure, undefined)
  assert.ok(!('paused' in body), 'a deployment that was paused by hand stays so')
})

test('the path is beside the file only where the agent takes the code from this machine', () => {
  for (const [lines, path] of [
    [['path: code'], '/here/code'],
    [['path: /abs'], '/abs'],
    [['path: code', 'infrastructure: {type: process}'], '/here/code'],
    [['path: /app', 'infrastructure: {type: docker-container, image: x}'], '/app'],
    [['infrastructure: docker-container/prod'], null],
    [['path: sub', 'storage: s3/prod'], 'sub'],
    [['flow_name: f', 'path: as/is'], 'as/is'],
  ] as const) {
    assert.equal(read(...lines).body.path, path, lines.join('; '))
  }
})

test('a queue, a pool and overrides go by either name', () => {
  assert.equal(read('queue: q').body.work_queue_name, 'q')
  assert.equal(read('work_queue_name: q').body.work_queue_name, 'q')
  assert.equal(read('pool: p').body.work_pool_name, 'p')
  assert.equal(read('work_pool_name: p').body.work_queue_name, null)
  assert.deepEqual(read('infra_overrides: {env.A: "1"}').body.job_variables, { 'env.A': '1' })
  assert.deepEqual(read('job_variables: {env.A: "1"}').body.job_variables, { 'env.A': '1' })
})

test('a schedule is a cron line, a number of seconds, a table, or several of them', () => {
  for (const [line, schedules] of [
    ['schedule: "0 6 * * *"', [{ schedule: { cron: '0 6 * * *' }, active: true }]],
    ['schedule: 3600', [{ schedule: { interval: 3600 }, active: true }]],
    [
      'schedule: {interval: 60.0, anchor_date: null, timezone: UTC}',
      [{ schedule: { interval: 60, timezone: 'UTC' }, active: true }],
    ],
    ['schedule: {rrule: FREQ=DAILY}', [{ schedule: { rrule: 'FREQ=DAILY' }, active: true }]],
    ['schedule: {cron: "@daily", active: false}', [{ schedule: { cron: '@daily' }, active: false }]],
    [
      'schedules: [60, {schedule: {cron: "@daily"}, max_scheduled_runs: 2, active: false, catchup: null}]',
      [
        { schedule: { interval: 60 }, active: true },
        { schedule: { cron: '@daily' }, active: false, max_scheduled_runs: 2 },
      ],
    ],
    ['schedule: null', []],
  ] as const) {
    assert.deepEqual(read(line).body.schedules, schedules, line)
  }
  const inactive = read('schedule: 60', 'is_schedule_active: false').body
  assert.deepEqual(inactive.schedules, [{ schedule: { interval: 60 }, active: false }])
  assert.equal(inactive.paused, true)
})

test('a block is a name, data of its own, or what Prefect 2 has written of a named or anonymous one', () => {
  for (const [line, plan] of [
    ['infrastructure: process/small', { kind: 'named', slug: 'process', name: 'small' }],
    [
      'infrastructure: {type: process, env: {A: b}}',
      { kind: 'anonymous', slug: 'process', data: { type: 'process', env: { A: 'b' } } },
    ],
    [
      'infrastructure: {type: process, block_type_slug: process, _block_type_slug: process, _is_anonymous: false, _block_document_name: prod, _block_document_id: 1}',
      { kind: 'named', slug: 'process', name: 'prod' },
    ],
    [
      'infrastructure: {type: process, block_type_slug: process, _is_anonymous: true, _block_document_name: anonymous-1, _block_document_id: x}',
      { kind: 'id', id: 'x' },
    ],
    [
      'infrastructure: {type: process, env: {}, block_type_slug: process, _block_type_slug: process}',
      { kind: 'anonymous', slug: 'process', data: { type: 'process', env: {} } },
    ],
  ] as const) {
    assert.deepEqual(read(line).infrastructure, plan, line)
  }
  const storage =
    'storage: {basepath: /x, _block_type_slug: local-file-system, _is_anonymous: true, _block_document_id: abc}'
  assert.deepEqual(read(storage).storage, { kind: 'id', id: 'abc' })
})

test('several deployments stand in one file', () => {
  const document = 'flow: f\nentrypoint: a.py:f\nname: '
  const plans = readDeploymentFile(`${document}one\n---\n${document}two\n---\n`, 'd.yaml', '/')
  assert.deepEqual(
    plans.map(plan => plan.body.name),
    ['one', 'two'],
  )
})

test('what cannot be used is refused with the file, the document and the field', () => {
  const good = 'flow: f\nname: n\nentrypoint: a.py:f\n'
  for (const [content, message, hint] of [
    ['', /d\.yaml: there is no deployment/, undefined],
    ['- 1', /d\.yaml: it is not a table/, undefined],
    ['a: [', /d\.yaml: /, undefined],
    ['deployments: []', /prefect\.yaml/, /prefect deploy/],
    [`${good}entrypiont: x`, /"entrypiont" is unknown/, /"entrypoint"/],
    [`${good}---\nflow: f\nentrypoint: a`, /document 2: field "name" is missing/, undefined],
    ['name: n\nentrypoint: a', /field "flow" is missing/, undefined],
    ['flow: f\nname: n', /field "entrypoint" is missing/, /flow\.py:function/],
    [`${good}parameters: [1]`, /"parameters" must be a table/, undefined],
    [`${good}infrastructure: process`, /"infrastructure" is "process".*block-type\/name/, undefined],
    [`${good}infrastructure: {env: {}}`, /"infrastructure" does not say its block type/, /type/],
    [`${good}schedule: {cronn: x}`, /schedule/, /cron/],
  ] as const) {
    assert.throws(
      () => readDeploymentFile(content, 'd.yaml', '/'),
      (error: unknown) => {
        assert.ok(error instanceof UserError, String(error))
        assert.match(error.message, message)
        if (hint) assert.match(error.hint ?? '', hint)
        return true
      },
      content,
    )
  }
})

test('values of parameters are JSON where they can be read as such', () => {
  assert.deepEqual(readPairs(['a=1', 'b=x y', 'c={"d": [true]}', 'e=f=g', 'h=', 'i="1"']), {
    a: 1,
    b: 'x y',
    c: { d: [true] },
    e: 'f=g',
    h: '',
    i: '1',
  })
  assert.throws(() => readPairs(['=1']), /KEY=VALUE/)
})
