// Runs outlive their agent: it is killed here with SIGKILL, as a real process, and another one takes over.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { Handle, RunSpec } from '../../src/infrastructure/infrastructure.ts'
import { listProcesses, readCommand } from '../../src/infrastructure/process-table.ts'
import { until } from '../support/until.ts'
import { ignoreOutput, makeSpec, unstopped } from './contract.ts'
import type { AgentOrder } from './process-agent.ts'
import { leakMark, makeProcessSubject, type ProcessSubject } from './process-subject.ts'

const AGENT = join(import.meta.dirname, 'process-agent.ts')

/** An agent as a process of its own, killed when its owner's block ends. */
function startAgent(subject: ProcessSubject, spec: RunSpec, overrides: Partial<AgentOrder> = {}) {
  const { runsDirectory } = subject
  const order: AgentOrder = { runsDirectory, outputCapBytes: 1024 * 1024, spec, waits: true, ...overrides }
  const words = [AGENT, JSON.stringify(order)]
  const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'], detached: true })
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text))
  const ended = new Promise<number | null>(resolve => child.once('exit', resolve))
  const kill = async (): Promise<void> => {
    // Its whole process group, as a service manager or a closed terminal may do.
    const isRunning = child.exitCode === null && child.signalCode === null
    if (child.pid !== undefined && isRunning) process.kill(-child.pid, 'SIGKILL')
    await ended
  }
  return {
    ended,
    kill,
    said: () => said,
    handle: async (): Promise<Handle> => JSON.parse(await until(() => /^handle (.*)$/m.exec(said)?.[1])),
    [Symbol.asyncDispose]: kill,
  }
}

/** A run that notes its start, the pid included, in a file beside the runs. */
async function makeLedgerSpec(subject: ProcessSubject, script: string) {
  const spec = makeSpec(subject, `echo "START $$" >> "$LEDGER"; ${script}`)
  const ledger = join(subject.runsDirectory, '..', `ledger-${spec.attempt}`)
  await subject.prepare(spec.flowRunId)
  const starts = async (): Promise<readonly string[]> => {
    const text = existsSync(ledger) ? await readFile(ledger, 'utf8') : ''
    return text.split('\n').filter(line => line !== '')
  }
  return { spec: { ...spec, env: { LEDGER: ledger, ...leakMark } }, starts }
}

const pidOf = (handle: Handle): number => Number(handle.identifier.split(':').at(-1))

test('after SIGKILL of the agent its run goes on in the same process, and the next agent sees its end', async () => {
  await using subject = await makeProcessSubject()
  const { spec, starts } = await makeLedgerSpec(
    subject,
    'echo one; while [ ! -e "$LEDGER.go" ]; do sleep 0.05; done; exit 4',
  )
  await using agent = startAgent(subject, spec)
  const handle = await agent.handle()
  await until(() => agent.said().includes('line one'))
  // Told is not yet noted: an agent that is killed between the two has its successor tell it again.
  const position = join(subject.folderOf(spec), 'position')
  await until(async () => Number.parseInt(await readFile(position, 'utf8'), 10) === 'one\n'.length)
  await agent.kill()

  const next = subject.startAnew()
  const found = await next.reattach(spec, undefined, unstopped)
  assert.deepEqual(found, handle)
  const lines: string[] = []
  const waiting = next.wait(handle, more => void lines.push(...more), unstopped)
  await writeFile(`${spec.env.LEDGER}.go`, '')
  const exit = await waiting
  assert.equal(exit.kind === 'exited' && exit.statusCode, 4)
  assert.deepEqual(await starts(), [`START ${pidOf(handle)}`])
  assert.deepEqual([lines, exit.outputTail], [[], ['one']])
})

test('a run that ended while no agent was there is told with its code and output', async () => {
  await using subject = await makeProcessSubject()
  const script = 'while [ ! -e "$LEDGER.go" ]; do sleep 0.05; done; echo last words; exit 3'
  const { spec } = await makeLedgerSpec(subject, script)
  await using agent = startAgent(subject, spec)
  const handle = await agent.handle()
  await agent.kill()
  await writeFile(`${spec.env.LEDGER}.go`, '')
  await until(async () => (await readFile(join(subject.folderOf(spec), 'exit'), 'utf8')).startsWith('rigel-exit'))

  const lines: string[] = []
  const exit = await subject.startAnew().wait(handle, more => void lines.push(...more), unstopped)
  assert.equal(exit.kind === 'exited' && exit.statusCode, 3)
  assert.deepEqual(lines, ['last words'])
})

test('a living run does not keep its agent alive', async () => {
  await using subject = await makeProcessSubject()
  const { spec } = await makeLedgerSpec(subject, 'exec sleep 60')
  await using agent = startAgent(subject, spec, { waits: false })
  assert.equal(await agent.ended, 0)
  assert.ok(await subject.infrastructure.reattach(spec, undefined, unstopped))
})

/** A shell that comes late: it waits for a file before it becomes `sh`. */
async function makeLateShell(
  subject: ProcessSubject,
  sh: string,
): Promise<{ shell: string; letGo: () => Promise<void> }> {
  const shell = join(subject.runsDirectory, '..', 'late-sh')
  await writeFile(shell, `#!/bin/sh\nwhile [ ! -e "${shell}.go" ]; do sleep 0.02; done\nexec ${sh} "$@"\n`)
  await chmod(shell, 0o755)
  return { shell, letGo: () => writeFile(`${shell}.go`, '') }
}

for (const [sh, program] of [
  ['/bin/sh', '/bin/sh'],
  ['/bin/bash --posix', '/bin/bash'],
  ['/bin/busybox sh', '/bin/busybox'],
] as const) {
  const skip = existsSync(program) ? false : `needs ${program}`
  test(`a supervisor that comes late, after the successor has looked, starts nothing (${sh})`, { skip }, async () => {
    await using subject = await makeProcessSubject()
    const { spec, starts } = await makeLedgerSpec(subject, 'exit 0')
    const { shell, letGo } = await makeLateShell(subject, sh)
    await using agent = startAgent(subject, spec, { shell })
    await until(() => isSupervised(subject.folderOf(spec)))
    await agent.kill()

    const next = subject.startAnew()
    assert.equal(await next.reattach(spec, undefined, unstopped), undefined)
    await letGo()
    await until(() => !isSupervised(subject.folderOf(spec)))
    assert.deepEqual(await starts(), [])

    const handle = await next.submit(spec, unstopped)
    await next.wait(handle, ignoreOutput, unstopped)
    assert.deepEqual(await starts(), [`START ${pidOf(handle)}`])
  })
}

test('a supervisor whose agent died before it could answer starts the run all the same', async () => {
  await using subject = await makeProcessSubject()
  const { spec, starts } = await makeLedgerSpec(subject, 'exit 8')
  const { shell, letGo } = await makeLateShell(subject, '/bin/sh')
  await using agent = startAgent(subject, spec, { shell })
  await until(() => isSupervised(subject.folderOf(spec)))
  await agent.kill()
  await letGo()
  await until(async () => (await starts()).length > 0)

  const next = subject.startAnew()
  const handle = await next.reattach(spec, undefined, unstopped)
  assert.ok(handle)
  const exit = await next.wait(handle, ignoreOutput, unstopped)
  assert.equal(exit.kind === 'exited' && exit.statusCode, 8)
})

test('an agent killed at any moment of the start leaves a run that is started exactly once', async () => {
  await using subject = await makeProcessSubject()
  const found = { adopted: 0, startedAnew: 0 }
  for (let round = 0; round < 16; round += 1) {
    const { spec, starts } = await makeLedgerSpec(subject, 'exit 0')
    await using agent = startAgent(subject, spec)
    // The folder is made first; the whole start then takes some 10 ms.
    await until(() => existsSync(subject.folderOf(spec)), { everyMs: 1 })
    await delay(round)
    await agent.kill()
    const next = subject.startAnew()
    const adopted = await next.reattach(spec, undefined, unstopped)
    const handle = adopted ?? (await next.submit(spec, unstopped))
    found[adopted ? 'adopted' : 'startedAnew'] += 1
    const exit = await next.wait(handle, ignoreOutput, unstopped)
    assert.equal(exit.kind, 'exited', JSON.stringify(exit))
    await until(() => !isSupervised(subject.folderOf(spec)))
    assert.deepEqual(await starts(), [`START ${pidOf(handle)}`], `round ${round}`)
  }
  console.log(`killed during the start: ${found.adopted} adopted, ${found.startedAnew} started anew`)
})

test('eight submitters of one attempt at the same moment start it once', async () => {
  await using subject = await makeProcessSubject()
  const { spec, starts } = await makeLedgerSpec(subject, 'sleep 0.2')
  const agents = Array.from({ length: 8 }, () => subject.startAnew())
  const handles = await Promise.all(agents.map(agent => agent.submit(spec, unstopped)))
  assert.equal(new Set(handles.map(handle => handle.identifier)).size, 1)
  for (const handle of handles) await subject.infrastructure.wait(handle, ignoreOutput, unstopped)
  assert.equal((await starts()).length, 1)
})

test('output stays in bounds when no agent is there, and the next one says that it was cut', async () => {
  await using subject = await makeProcessSubject()
  const noisy =
    'i=0; while [ ! -e "$LEDGER.go" ]; do i=$((i+1)); echo "line $i of a run that talks a lot"; done; echo end'
  const { spec } = await makeLedgerSpec(subject, noisy)
  await using agent = startAgent(subject, spec, { outputCapBytes: 64 * 1024, caretakerSeconds: 1 })
  const handle = await agent.handle()
  const keeper = await until(() => findCaretaker(subject.runsDirectory))
  await agent.kill()
  const position = join(subject.folderOf(spec), 'position')
  await until(async () => (await readFile(position, 'utf8')).includes('cut'))
  await writeFile(`${spec.env.LEDGER}.go`, '')
  const lines: string[] = []
  const next = subject.startAnew({ outputCapBytes: 64 * 1024 * 1024 })
  const exit = await next.wait(handle, more => void lines.push(...more), unstopped)
  assert.match(lines[0] ?? '', /^\[rigel\] output was cut here/)
  assert.equal(exit.outputTail.at(-1), 'end')
  await until(() => findCaretaker(subject.runsDirectory) !== keeper, { what: 'the caretaker to end with its last run' })
})

test('the caretaker of a dead agent leaves a run alone that another agent has taken over', async () => {
  await using subject = await makeProcessSubject()
  const { spec } = await makeLedgerSpec(subject, 'exec sleep 60')
  await using agent = startAgent(subject, spec, { caretakerSeconds: 1 })
  const handle = await agent.handle()
  const keeper = await until(() => findCaretaker(subject.runsDirectory))
  await agent.kill()
  await delay(200)
  assert.equal(findCaretaker(subject.runsDirectory), keeper)
  const stop = new AbortController()
  const waiting = subject.infrastructure.wait(handle, ignoreOutput, stop.signal)
  await until(() => !listProcesses().some(({ pid, state }) => pid === keeper && state !== 'Z'))
  stop.abort()
  await assert.rejects(waiting)
})

function findCaretaker(runsDirectory: string): number | undefined {
  const isOurs = (command: readonly string[]): boolean =>
    command.some(word => word.endsWith('/caretaker.sh')) && command.includes(runsDirectory)
  return listProcesses().find(({ pid }) => isOurs(readCommand(pid)))?.pid
}

function isSupervised(folder: string): boolean {
  return listProcesses().some(({ pid }) => readCommand(pid).includes(folder))
}
