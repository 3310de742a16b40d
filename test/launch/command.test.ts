import assert from 'node:assert/strict'
import test from 'node:test'

import type { Value } from '../../src/infrastructure/infrastructure.ts'
import { entrypointPath, planCommand, type WorkspaceFact } from '../../src/launch/command.ts'
import { LaunchError } from '../../src/launch/errors.ts'

function plan(entrypoint: string | null, found: WorkspaceFact = 'missing', blockCommand?: string[]) {
  return planCommand({ blockCommand, entrypoint, found })
}

for (const entrypoint of [
  'flow.py:main',
  'flows/sub dir/x.py:Flows.main',
  '/abs/flow.py:main',
  String.raw`flows\x.py:main`,
  'pkg.module:main',
  'pkg.module.main',
  'módulo.größe',
]) {
  test(`entrypoint ${entrypoint} is run by Prefect's engine`, () => {
    assert.deepEqual(plan(entrypoint), { kind: 'engine' })
  })
}

const inWorkspace = (path: string): Value => ({ in: 'workspace', path })
const executables: [entrypoint: string, found: WorkspaceFact, command: readonly Value[]][] = [
  ['./job.sh', 'executable', [inWorkspace('job.sh')]],
  ['bin/report --daily "a b"', 'executable', [inWorkspace('bin/report'), '--daily', 'a b']],
  ['bin/../job.sh', 'executable', [inWorkspace('job.sh')]],
  ['job.sh', 'executable', [inWorkspace('job.sh')]],
  ['report', 'executable', [inWorkspace('report')]],
  ['report', 'missing', ['report']],
  ['report', 'file', ['report']],
  ['./job.sh', 'missing', ['./job.sh']],
  ['/usr/bin/env true', 'missing', ['/usr/bin/env', 'true']],
  ['python job.py', 'missing', ['python', 'job.py']],
  ['true', 'missing', ['true']],
  ['curl http://host:80/x', 'missing', ['curl', 'http://host:80/x']],
]

for (const [entrypoint, found, command] of executables) {
  test(`entrypoint ${entrypoint} (${found} in the workspace) is run as a program`, () => {
    assert.deepEqual(plan(entrypoint, found), { kind: 'executable', command })
  })
}

const refused: [entrypoint: string | null, found: WorkspaceFact, want: RegExp][] = [
  [null, 'missing', /neither an entrypoint nor a command/],
  ['  ', 'missing', /neither an entrypoint nor a command/],
  ['flow.ts:main', 'missing', /\.ts file; only Python flows and executables/],
  ['flow.mjs:main', 'missing', /\.mjs file/],
  ['./job.sh', 'file', /not executable: set its executable bit/],
  ['job.sh', 'file', /not executable/],
  [`''`, 'missing', /names no program/],
  [`./job 'x`, 'missing', /quote/],
]

for (const [entrypoint, found, want] of refused) {
  test(`entrypoint ${JSON.stringify(entrypoint)} (${found}) is refused with a sentence`, () => {
    assert.throws(
      () => plan(entrypoint, found),
      (error: unknown) => error instanceof LaunchError && want.test(error.message),
    )
  })
}

const commands: [command: string[], isEngine: boolean][] = [
  [['python', '-m', 'prefect.engine'], true],
  [['prefect', 'flow-run', 'execute'], true],
  [['/venv/bin/prefect', 'flow-run', 'execute'], true],
  [['sh', '-c', 'cd /x && exec prefect flow-run execute'], true],
  [['sh', '-c', "python3.11 -m 'prefect.engine'"], true],
  [['sh', '-c', 'exit 0'], false],
  [['python', '/opt/prefect/job.py'], false],
  [['/home/prefect/bin/report'], false],
  [['python', 'my-prefect-job.py'], false],
]

for (const [command, isEngine] of commands) {
  test(`a block's command "${command.join(' ')}" ${isEngine ? 'starts an engine' : 'is no engine'}`, () => {
    assert.deepEqual(plan('flow.py:main', 'missing', command), { kind: 'command', command, isEngine })
    assert.deepEqual(plan(null, 'missing', command), { kind: 'command', command, isEngine })
  })
}

const paths: [entrypoint: string, path: string | undefined][] = [
  ['flow.py:main', undefined],
  ['flow.ts:main', undefined],
  ['./bin/report --daily', 'bin/report'],
  ['a//b', 'a/b'],
  ['pkg.module.main', 'pkg.module.main'],
  ['true', 'true'],
  ['/usr/bin/true', undefined],
  ['../outside', undefined],
  ['a/../../outside', undefined],
  ['.', undefined],
  ['', undefined],
]

for (const [entrypoint, path] of paths) {
  test(`for entrypoint "${entrypoint}" the workspace is asked for ${path ?? 'nothing'}`, () => {
    assert.equal(entrypointPath(entrypoint), path)
  })
}
