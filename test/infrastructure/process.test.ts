// What a process run gets from its driver: directory, environment, descriptors, signals; and what its end is called.

import assert from 'node:assert/strict'
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { type Exit, InfrastructureError, type RunSpec } from '../../src/infrastructure/infrastructure.ts'
import type { ProcessOptions } from '../../src/infrastructure/process.ts'
import { until } from '../support/until.ts'
import { ignoreOutput, makeSpec, unstopped } from './contract.ts'
import { leakMark, makeProcessSubject, type ProcessSubject } from './process-subject.ts'

interface Told {
  readonly exit: Exit
  readonly lines: readonly string[]
}

/** Runs a spec to its end. */
async function runSpec(subject: ProcessSubject, spec: RunSpec, options: Partial<ProcessOptions> = {}): Promise<Told> {
  await subject.prepare(spec.flowRunId)
  const driver = subject.startAnew(options)
  const handle = await driver.submit({ ...spec, env: { ...leakMark, ...spec.env } }, unstopped)
  const lines: string[] = []
  const exit = await driver.wait(handle, more => void lines.push(...more), unstopped)
  return { exit, lines }
}

/** The error with which a spec is refused. */
async function refusal(subject: ProcessSubject, spec: RunSpec): Promise<InfrastructureError> {
  await subject.prepare(spec.flowRunId)
  const error: unknown = await subject.infrastructure.submit(spec, unstopped).then(
    () => new Error('it was started'),
    thrown => thrown,
  )
  assert.ok(error instanceof InfrastructureError, String(error))
  assert.equal(await subject.infrastructure.reattach(spec, undefined, unstopped), undefined)
  return error
}

test('a run without code starts in an empty folder of its own', async () => {
  await using subject = await makeProcessSubject()
  const spec = makeSpec(subject, 'pwd; ls -A')
  const { lines } = await runSpec(subject, spec)
  assert.deepEqual(lines, [join(subject.folderOf(spec), 'cwd')])
})

test('a run starts in its workspace, and in working_dir where that is set, with the workspace named', async () => {
  await using subject = await makeProcessSubject()
  const workspace = join(subject.runsDirectory, '..', 'code')
  await mkdir(workspace)
  const script = 'pwd; echo "$RIGEL_WORKSPACE"; echo "$PWD"'
  const inCode = await runSpec(subject, makeSpec(subject, script, { workspace }))
  assert.deepEqual(inCode.lines, [workspace, workspace, workspace])
  const settings = { working_dir: '/usr' }
  const elsewhere = await runSpec(subject, makeSpec(subject, script, { workspace, settings }))
  assert.deepEqual(elsewhere.lines, ['/usr', workspace, '/usr'])
})

test('the files of a run can be read by its user only, and so can its folder', async () => {
  await using subject = await makeProcessSubject()
  const spec = makeSpec(subject, 'exit 0', { files: { secret: 'x' } })
  await runSpec(subject, spec)
  const folder = subject.folderOf(spec)
  assert.equal((await stat(folder)).mode & 0o777, 0o700)
  assert.equal((await stat(join(folder, 'files'))).mode & 0o777, 0o700)
  for (const name of ['files/secret', 'output', 'exit', 'position']) {
    assert.equal((await stat(join(folder, name))).mode & 0o777, 0o600, name)
  }
})

test('a run inherits the environment of the agent but none of its secrets, nor systemd words', async () => {
  await using subject = await makeProcessSubject()
  const environment = {
    PATH: process.env.PATH,
    PREFECT_API_URL: 'http://127.0.0.1/api',
    RIGEL_STATUS_TOKEN: 'secret',
    RIGEL_PYTHON: '/opt/python',
    NOTIFY_SOCKET: '/run/notify',
    GONE: 'x',
  }
  const spec = makeSpec(subject, 'env', { env: { OWN: '1', RIGEL_PARAMETERS_FILE: '/p' }, unsetEnv: ['GONE'] })
  const { lines } = await runSpec(subject, spec, { environment })
  const names = lines
    .map(line => line.slice(0, line.indexOf('=')))
    .filter(name => name !== '_' && name !== 'RIGEL_TEST_FILE')
  assert.deepEqual(names.toSorted(), [
    'OWN',
    'PATH',
    'PREFECT_API_URL',
    'PREFECT__FLOW_RUN_ID',
    'PWD',
    'RIGEL_ATTEMPT',
    'RIGEL_PARAMETERS_FILE',
    'RIGEL_PYTHON',
  ])
})

test('a list limits what a run inherits', async () => {
  await using subject = await makeProcessSubject()
  const environment = { PATH: process.env.PATH, HOME: '/h', AWS_SECRET_ACCESS_KEY: 's', RIGEL_STATUS_TOKEN: 't' }
  const inheritEnv = ['PATH', 'RIGEL_STATUS_TOKEN', 'MISSING']
  const { lines } = await runSpec(subject, makeSpec(subject, 'env'), { environment, inheritEnv })
  assert.ok(lines.some(line => line.startsWith('PATH=')))
  assert.ok(!lines.some(line => /^(HOME|AWS_SECRET_ACCESS_KEY|RIGEL_STATUS_TOKEN|MISSING)=/.test(line)))
})

test('variables whose names a shell would drop or change reach the run, and no argument vector shows them', async () => {
  await using subject = await makeProcessSubject()
  const env = { 'a.b': 'dotted value', 'npm-x': "it's\na line", PWD: '/elsewhere', IFS: ',', PLAIN: 'p' }
  const spec = { ...makeSpec(subject, ''), env, command: ['env', '-0'] }
  const { lines, exit } = await runSpec(subject, spec)
  assert.equal(exit.kind === 'exited' && exit.statusCode, 0)
  const variables = lines.join('\n').split('\0')
  for (const [name, value] of Object.entries(env)) assert.ok(variables.includes(`${name}=${value}`), name)
  assert.ok(!variables.some(variable => variable.startsWith('RIGEL_STRANGE_ENVIRONMENT=')))

  const go = join(subject.runsDirectory, '..', 'go')
  const script = 'while [ ! -e "$1" ]; do sleep 0.05; done'
  const waits = { ...makeSpec(subject, script, { words: [go] }), env }
  await subject.prepare(waits.flowRunId)
  const handle = await subject.infrastructure.submit(waits, unstopped)
  const waiting = subject.infrastructure.wait(handle, ignoreOutput, unstopped)
  const seen = new Set<string>()
  await until(async () => {
    await collectCommands(seen)
    return [...seen].some(command => command === ['sh', '-c', script, 'sh', go, ''].join('\0'))
  })
  await collectCommands(seen)
  await writeFile(go, '')
  const lateExit = await waiting
  assert.equal(lateExit.kind === 'exited' && lateExit.statusCode, 0)
  assert.ok(![...seen].some(command => command.includes('dotted value')))
})

async function collectCommands(seen: Set<string>): Promise<void> {
  for (const pid of await readdir('/proc')) {
    if (/^\d+$/.test(pid)) seen.add(await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''))
  }
}

test('a run ignores no signal, holds no descriptor of the agent and reads an empty input', async () => {
  await using subject = await makeProcessSubject()
  const script =
    'grep SigIgn /proc/self/status; cat; for fd in 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$fd ] && echo "fd $fd"; done; echo end'
  const { lines } = await runSpec(subject, makeSpec(subject, script))
  assert.deepEqual(lines, ['SigIgn:\t0000000000000000', 'end'])
})

test('a run is in a session of its own, and its supervisor in another', async () => {
  await using subject = await makeProcessSubject()
  const { lines } = await runSpec(
    subject,
    makeSpec(subject, 'for p in $$ $PPID; do cut -d" " -f1,6 /proc/$p/stat; done'),
  )
  const [run, supervisor] = lines.map(line => line.split(' '))
  assert.equal(run?.[0], run?.[1])
  assert.equal(supervisor?.[0], supervisor?.[1])
})

test('signals to the supervisor change nothing for the run or for its exit code', async () => {
  await using subject = await makeProcessSubject()
  const script = 'for s in TERM HUP INT QUIT USR1 PIPE; do kill -$s $PPID; done; sleep 0.3; exit 5'
  const { exit } = await runSpec(subject, makeSpec(subject, script))
  assert.equal(exit.kind === 'exited' && exit.statusCode, 5)
})

test('the end of a run is told with what its code may mean', async () => {
  await using subject = await makeProcessSubject()
  const told = async (script: string): Promise<readonly unknown[]> => {
    const { exit } = await runSpec(subject, makeSpec(subject, script))
    return exit.kind === 'exited' ? [exit.statusCode, exit.signal, exit.reason] : [exit.kind]
  }
  const [code, signal, reason] = await told('kill -KILL $$')
  assert.deepEqual([code, signal], [undefined, 'SIGKILL'])
  assert.match(String(reason), /^SIGKILL ended it .*memory.*, or it exited with code 137 by itself$/)
  assert.deepEqual((await told('exit 137')).slice(0, 2), [undefined, 'SIGKILL'])
  assert.deepEqual((await told('kill -INT $$')).slice(0, 2), [undefined, 'SIGINT'])
  assert.deepEqual((await told('exit 255')).slice(0, 3), [255, undefined, undefined])
  assert.match(String((await told('exit 247'))[2]), /memory/)
  assert.match(String((await told('/nowhere/at-all'))[2]), /not found/)
})

test('a script whose interpreter is missing says so in its last lines', async () => {
  await using subject = await makeProcessSubject()
  const script = join(subject.runsDirectory, '..', 'job')
  await writeFile(script, '#!/nowhere/python\n')
  await chmod(script, 0o755)
  const { exit } = await runSpec(subject, { ...makeSpec(subject, ''), command: [script] })
  assert.ok(exit.kind === 'exited' && exit.statusCode !== undefined && [126, 127].includes(exit.statusCode))
  assert.match(exit.outputTail.join('\n'), /job/)
})

test('a command that is not found blames the run and names the command and PATH', async () => {
  await using subject = await makeProcessSubject()
  const env = { PATH: '/nowhere/bin:/usr/bin' }
  const error = await refusal(subject, { ...makeSpec(subject, ''), command: ['no-such-program', '-x'], env })
  assert.equal(error.blame, 'run')
  assert.match(error.message, /Command not found: "no-such-program".*PATH is \/nowhere\/bin:\/usr\/bin/)
})

test('a file that is missing, no program or a folder blames the run and names it', async () => {
  await using subject = await makeProcessSubject()
  const workspace = join(subject.runsDirectory, '..', 'code')
  await mkdir(join(workspace, 'folder'), { recursive: true })
  await writeFile(join(workspace, 'job.sh'), 'echo hi\n', { mode: 0o644 })
  const refused = async (command: string): Promise<string> => {
    const error = await refusal(subject, { ...makeSpec(subject, '', { workspace }), command: [command] })
    assert.equal(error.blame, 'run')
    return error.message
  }
  assert.match(await refused('./gone.sh'), /there is no file .*code\/gone\.sh, looked for from .*code/)
  assert.match(await refused('./job.sh'), /may not execute .*code\/job\.sh.*execute bit/)
  assert.match(await refused('./folder'), /folder is a folder/)
})

test('a working_dir that is missing, or no text, blames the run', async () => {
  await using subject = await makeProcessSubject()
  const gone = await refusal(subject, makeSpec(subject, 'exit 0', { settings: { working_dir: '/nowhere/at/all' } }))
  assert.deepEqual(
    [gone.blame, gone.message],
    ['run', 'working_dir /nowhere/at/all cannot be entered: it does not exist'],
  )
  const wrong = await refusal(subject, makeSpec(subject, 'exit 0', { settings: { working_dir: 7 } }))
  assert.equal(wrong.blame, 'run')
  assert.match(wrong.message, /"working_dir" cannot be used/)
})

test('an environment larger than the kernel takes blames the run', async () => {
  await using subject = await makeProcessSubject()
  const error = await refusal(subject, makeSpec(subject, 'exit 0', { env: { BIG: 'x'.repeat(3_000_000) } }))
  assert.equal(error.blame, 'run')
  assert.match(error.message, /larger than the kernel takes/)
})

test('a machine on which no supervisor can be started is to blame itself', async () => {
  await using subject = await makeProcessSubject({ shell: '/bin/false' })
  const error = await refusal(subject, makeSpec(subject, 'exit 0'))
  assert.equal(error.blame, 'host')
  assert.match(error.message, /supervisor ended before it could start the run/)
})

test('a record of a newer version is refused and left as it is', async () => {
  await using subject = await makeProcessSubject()
  const spec = makeSpec(subject, 'exit 0')
  await runSpec(subject, spec)
  const path = join(subject.folderOf(spec), 'record')
  const newer = (await readFile(path, 'utf8')).replace('rigel-process 1', 'rigel-process 2')
  await writeFile(path, newer)
  await assert.rejects(subject.infrastructure.reattach(spec, undefined, unstopped), /newer Rigel/)
  assert.equal(await readFile(path, 'utf8'), newer)
})

test('a run whose folder is gone has vanished', async () => {
  await using subject = await makeProcessSubject()
  const spec = makeSpec(subject, 'exit 0')
  await subject.prepare(spec.flowRunId)
  const handle = await subject.infrastructure.submit(spec, unstopped)
  await subject.infrastructure.wait(handle, ignoreOutput, unstopped)
  await subject.infrastructure.release(handle, unstopped)
  await rm(join(subject.runsDirectory, spec.flowRunId), { recursive: true })
  const exit = await subject.infrastructure.wait(handle, ignoreOutput, unstopped)
  assert.deepEqual(exit, { kind: 'vanished', reason: 'its records on this machine are gone', outputTail: [] })
  await subject.infrastructure.kill(handle, 0, unstopped)
})
