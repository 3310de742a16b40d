// Ending runs that do not want to end, and never ending what is not the run's.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import type { Exit, Handle, RunSpec } from '../../src/infrastructure/infrastructure.ts'
import { listProcesses, readEnvironment, readProcess } from '../../src/infrastructure/process-table.ts'
import { until } from '../support/until.ts'
import { ignoreOutput, makeSpec, unstopped } from './contract.ts'
import { leakMark, makeProcessSubject, type ProcessSubject } from './process-subject.ts'

interface Started {
  readonly handle: Handle
  readonly spec: RunSpec
  readonly lines: readonly string[]
  readonly ended: Promise<Exit>
}

/** Starts a script and waits until it has said `ready`. */
async function start(subject: ProcessSubject, script: string): Promise<Started> {
  const spec = makeSpec(subject, script, { env: leakMark })
  await subject.prepare(spec.flowRunId)
  const handle = await subject.infrastructure.submit(spec, unstopped)
  const lines: string[] = []
  const ended = subject.infrastructure.wait(handle, more => void lines.push(...more), unstopped)
  await until(() => lines.includes('ready'))
  return { handle, spec, lines, ended }
}

/** Living processes that carry the run's id. */
function findLiving({ spec }: Started): readonly number[] {
  return listProcesses()
    .filter(
      ({ state, pid }) => state !== 'Z' && readEnvironment(pid).includes(`PREFECT__FLOW_RUN_ID=${spec.flowRunId}`),
    )
    .map(({ pid }) => pid)
}

const pidOf = (handle: Handle): number => Number(handle.identifier.split(':').at(-1))

test('kill ends the whole tree: children, background jobs, and those that left by setsid', async () => {
  await using subject = await makeProcessSubject()
  const family = 'sleep 60 & setsid sleep 61 & setsid sh -c "sleep 62 & sleep 63" & sleep 64 & sleep 65 &'
  const run = await start(subject, `${family} echo ready; wait`)
  await subject.infrastructure.kill(run.handle, 30, unstopped)
  assert.deepEqual(findLiving(run), [])
  const exit = await run.ended
  assert.equal(exit.kind === 'exited' && exit.signal, 'SIGTERM')
})

test('a process that leaves the group while kill is at work is asked all the same', async () => {
  await using subject = await makeProcessSubject()
  const run = await start(subject, 'echo ready; while :; do setsid sleep 600 & sleep 0.01; done')
  const started = performance.now()
  await subject.infrastructure.kill(run.handle, 120, unstopped)
  assert.ok(performance.now() - started < 120_000, 'nobody had to be forced')
  assert.deepEqual(findLiving(run), [])
  await run.ended
})

test('kill ends what ignores SIGTERM outside the session of the run as well', async () => {
  await using subject = await makeProcessSubject()
  const run = await start(subject, `setsid sh -c 'trap "" TERM; while :; do sleep 1; done' & echo ready; wait`)
  await until(() => findLiving(run).length >= 4)
  await subject.infrastructure.kill(run.handle, 0.5, unstopped)
  assert.deepEqual(findLiving(run), [])
  await run.ended
})

test('kill ends a child that left by setsid with an empty environment, while its parent lives', async () => {
  await using subject = await makeProcessSubject()
  const run = await start(subject, 'env -i setsid -w sleep 66 & echo "child $!"; echo ready; wait')
  const child = Number(run.lines.find(line => line.startsWith('child '))?.slice(6))
  await until(() =>
    listProcesses().some(({ parent, pid, session }) => (parent === child || pid === child) && session === pid),
  )
  const family = listProcesses().filter(({ parent, pid }) => pid === child || parent === child)
  await subject.infrastructure.kill(run.handle, 1, unstopped)
  await run.ended
  const left = family.filter(
    ({ pid, start: since }) => readProcess(pid)?.start === since && readProcess(pid)?.state !== 'Z',
  )
  assert.deepEqual(left, [])
})

test('kill ends what the main process has left behind', async () => {
  await using subject = await makeProcessSubject()
  const run = await start(subject, 'setsid sleep 60 & sleep 61 & echo ready; exit 0')
  const exit = await run.ended
  assert.equal(exit.kind === 'exited' && exit.statusCode, 0)
  assert.ok(findLiving(run).length >= 2)
  await subject.startAnew().kill(run.handle, 2, unstopped)
  assert.deepEqual(findLiving(run), [])
})

test('kill ends a stopped run, and lets it end by itself', async () => {
  await using subject = await makeProcessSubject()
  const run = await start(subject, "trap 'exit 6' TERM; echo ready; while :; do sleep 0.1; done")
  process.kill(pidOf(run.handle), 'SIGSTOP')
  await until(() => readProcess(pidOf(run.handle))?.state === 'T')
  await subject.infrastructure.kill(run.handle, 30, unstopped)
  const exit = await run.ended
  assert.equal(exit.kind === 'exited' && exit.statusCode, 6)
})

test('kill that is aborted stops waiting, and may be repeated', async () => {
  await using subject = await makeProcessSubject()
  const run = await start(subject, "trap '' TERM; echo ready; while :; do sleep 0.1; done")
  const stop = AbortSignal.timeout(200)
  await assert.rejects(subject.infrastructure.kill(run.handle, 30, stop), { name: 'TimeoutError' })
  assert.ok(findLiving(run).length > 0)
  await subject.infrastructure.kill(run.handle, 0, unstopped)
  await run.ended
})

test('a run whose supervisor was killed is watched to its end, which is then said to be unknown', async () => {
  await using subject = await makeProcessSubject()
  const go = join(subject.runsDirectory, '..', 'go')
  const script = `echo "supervisor $PPID"; echo ready; while [ ! -e '${go}' ]; do sleep 0.05; done; echo last words; exit 0`
  const run = await start(subject, script)
  const supervisor = Number(run.lines.find(line => line.startsWith('supervisor '))?.slice(11))
  process.kill(supervisor, 'SIGKILL')
  await writeFile(go, '')
  const exit = await run.ended
  assert.equal(exit.kind, 'vanished')
  assert.match(
    exit.kind === 'vanished' ? exit.reason : '',
    new RegExp(`supervisor \\(process ${supervisor}\\) was killed: the exit code is not known`),
  )
  assert.equal(exit.outputTail.at(-1), 'last words')
  assert.ok(['Z', undefined].includes(readProcess(pidOf(run.handle))?.state))
})

test('a run whose supervisor was killed can be killed', async () => {
  await using subject = await makeProcessSubject()
  const run = await start(subject, 'echo "supervisor $PPID"; echo ready; sleep 60')
  const supervisor = Number(run.lines.find(line => line.startsWith('supervisor '))?.slice(11))
  process.kill(supervisor, 'SIGKILL')
  await subject.infrastructure.kill(run.handle, 5, unstopped)
  assert.deepEqual(findLiving(run), [])
  assert.equal((await run.ended).kind, 'vanished')
})

/** Words of a record: 2 supervisor's pid, 3 its start; 4 run's pid, 5 its start; 6 boot; 7 pid namespace. */
async function changeRecord(
  subject: ProcessSubject,
  spec: RunSpec,
  changes: Readonly<Record<number, string>>,
): Promise<void> {
  const path = join(subject.folderOf(spec), 'record')
  const words = (await readFile(path, 'utf8')).split(' ')
  await writeFile(path, words.map((word, at) => changes[at] ?? word).join(' '))
}

/** A run that has ended, whose exit nobody has written, as after a power cut. */
async function makeUnfinished(subject: ProcessSubject): Promise<Started> {
  const run = await start(subject, 'echo ready')
  await run.ended
  await writeFile(join(subject.folderOf(run.spec), 'exit'), ' '.repeat(62))
  return run
}

test('a pid that another process has by now is neither signalled nor waited for', async () => {
  await using subject = await makeProcessSubject()
  const run = await makeUnfinished(subject)
  const stranger = spawn('sleep', ['60'], { detached: true })
  try {
    const pid = String(stranger.pid)
    await changeRecord(subject, run.spec, { 2: pid, 3: '1', 4: pid, 5: '1' })
    const next = subject.startAnew()
    await next.kill(run.handle, 0, unstopped)
    const exit = await next.wait(run.handle, ignoreOutput, unstopped)
    assert.equal(exit.kind, 'vanished')
    assert.equal(stranger.exitCode ?? stranger.signalCode, null)
    assert.notEqual(readProcess(Number(pid))?.state, 'Z')
  } finally {
    stranger.kill('SIGKILL')
  }
})

for (const [what, changes] of [
  ['boot of the machine', { 6: 'another-boot' }],
  ['pid namespace', { 7: 'pid:[1]' }],
] as const) {
  test(`a run of another ${what} has vanished, and no pid is looked at or signalled`, async () => {
    await using subject = await makeProcessSubject()
    const run = await start(subject, 'echo ready; exec sleep 60')
    // Everything but one word is right: only that word can keep the living process from being found.
    await changeRecord(subject, run.spec, changes)
    const next = subject.startAnew()
    assert.deepEqual(await next.reattach(run.spec, undefined, unstopped), run.handle)
    const exit = await next.wait(run.handle, ignoreOutput, unstopped)
    assert.equal(exit.kind, 'vanished')
    assert.deepEqual(exit.outputTail, ['ready'])
    await next.kill(run.handle, 0, unstopped)
    assert.ok(findLiving(run).includes(pidOf(run.handle)))
    process.kill(pidOf(run.handle), 'SIGKILL')
    await run.ended
  })
}
