// The pure parts of the process driver, as tables.

import assert from 'node:assert/strict'
import test from 'node:test'
import { InfrastructureError } from '../../src/infrastructure/infrastructure.ts'
import { explainSpawnError } from '../../src/infrastructure/process-blame.ts'
import { buildEnvironment, splitEnvironment } from '../../src/infrastructure/process-environment.ts'
import { explainExitCode } from '../../src/infrastructure/process-exit.ts'

test('an exit code above 128 that is a known signal counts as the signal, others as themselves', () => {
  for (const [code, statusCode, signal, reason] of [
    [0, 0, undefined, undefined],
    [1, 1, undefined, undefined],
    [126, 126, undefined, /may not be executed/],
    [127, 127, undefined, /not found/],
    [128, 128, undefined, undefined],
    [130, undefined, 'SIGINT', /or it exited with code 130 by itself/],
    [134, undefined, 'SIGABRT', /or it exited with code 134 by itself/],
    [137, undefined, 'SIGKILL', /memory.*or it exited with code 137 by itself/],
    [139, undefined, 'SIGSEGV', /or it exited with code 139 by itself/],
    [143, undefined, 'SIGTERM', /cancellation.*or it exited with code 143 by itself/],
    [200, 200, undefined, undefined],
    [247, 247, undefined, /memory/],
    [255, 255, undefined, undefined],
  ] as const) {
    const told = explainExitCode(code)
    assert.deepEqual([told.statusCode, told.signal], [statusCode, signal], String(code))
    if (reason) assert.match(told.reason ?? '', reason)
    else assert.equal(told.reason, undefined)
  }
})

test('the environment of a run is the agent one without its secrets, then the run one', () => {
  const agent = {
    A: 'agent',
    B: 'agent',
    RIGEL_X: 's',
    RIGEL_PYTHON: 'py',
    WATCHDOG_USEC: '1',
    EMPTY: '',
    NOT: undefined,
  }
  const all = { agent, inheritEnv: 'all', run: {}, unsetEnv: [] } as const
  for (const [parts, expected] of [
    [all, { A: 'agent', B: 'agent', RIGEL_PYTHON: 'py', EMPTY: '' }],
    [
      { ...all, run: { A: 'run', RIGEL_X: 'run' } },
      { A: 'run', B: 'agent', RIGEL_PYTHON: 'py', EMPTY: '', RIGEL_X: 'run' },
    ],
    [
      { ...all, unsetEnv: ['A', 'EMPTY'] },
      { B: 'agent', RIGEL_PYTHON: 'py' },
    ],
    [{ ...all, inheritEnv: ['B', 'RIGEL_X', 'GONE'] }, { B: 'agent' }],
    [{ ...all, inheritEnv: [] }, {}],
  ] as const) {
    assert.deepEqual(buildEnvironment(parts), expected)
  }
})

test('names that are no identifiers, and a run own values for what a shell sets itself, take the other way', () => {
  const env = { PATH: '/bin', 'a.b': '1', 'npm-x': '2', 'BASH_FUNC_m%%': '() { :; }', PWD: '/agent', IFS: ',' }
  const { plain, strange } = splitEnvironment(env, { IFS: ',' })
  assert.deepEqual(plain, { PATH: '/bin', PWD: '/agent' })
  assert.deepEqual(strange, { 'a.b': '1', 'npm-x': '2', 'BASH_FUNC_m%%': '() { :; }', IFS: ',' })
})

test('want of disk, memory, processes or descriptors is the host to blame, a bug nobody', () => {
  for (const [code, blame] of [
    ['ENOSPC', 'host'],
    ['EMFILE', 'host'],
    ['ENOMEM', 'host'],
    ['EAGAIN', 'host'],
    ['E2BIG', 'run'],
    ['EACCES', 'run'],
    ['ERR_INVALID_ARG_VALUE', 'run'],
  ] as const) {
    const explained = explainSpawnError(Object.assign(new Error(`spawn ${code}`), { code }))
    assert.ok(explained instanceof InfrastructureError)
    assert.equal(explained.blame, blame, code)
  }
  const bug = new TypeError('undefined is not a function')
  assert.equal(explainSpawnError(bug), bug)
})
