// Output: nothing is lost, doubled or torn, and the disk is not filled.

import assert from 'node:assert/strict'
import { appendFileSync, existsSync, statSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { setTimeout as delay, setImmediate } from 'node:timers/promises'
import * as fc from 'fast-check'
import type { Exit } from '../../src/infrastructure/infrastructure.ts'
import type { ProcessOptions } from '../../src/infrastructure/process.ts'
import { LONGEST_LINE, splitLines } from '../../src/infrastructure/process-lines.ts'
import { Output, writePosition } from '../../src/infrastructure/process-output.ts'
import { readProcess } from '../../src/infrastructure/process-table.ts'
import { makeDirectory } from '../support/directory.ts'
import { until } from '../support/until.ts'
import { makeSpec, unstopped } from './contract.ts'
import { leakMark, makeProcessSubject, type ProcessSubject } from './process-subject.ts'

interface Told {
  readonly exit: Exit
  readonly lines: readonly string[]
  readonly folder: string
}

async function tell(
  subject: ProcessSubject,
  script: string,
  { settings = {}, ...options }: Partial<ProcessOptions> & { settings?: Record<string, unknown> } = {},
): Promise<Told> {
  const spec = makeSpec({ settings }, script, { env: leakMark })
  await subject.prepare(spec.flowRunId)
  const driver = subject.startAnew(options)
  const handle = await driver.submit(spec, unstopped)
  const lines: string[] = []
  const exit = await driver.wait(handle, more => void lines.push(...more), unstopped)
  return { exit, lines, folder: subject.folderOf(spec) }
}

test('a UTF-8 character that is written in two halves, seconds apart, arrives whole', async () => {
  await using subject = await makeProcessSubject()
  const { lines } = await tell(
    subject,
    "printf 'gr\\303'; sleep 1.5; printf '\\274n\\n\\360\\237'; sleep 1.5; printf '\\220\\264'",
  )
  assert.deepEqual(lines, ['grün', '🐴'])
})

test('a line of 1 MiB arrives in pieces and complete', async () => {
  await using subject = await makeProcessSubject()
  const { lines } = await tell(subject, `printf 'ä%.0s' $(seq 500000); echo; echo end`, { outputCapBytes: 10_000_000 })
  assert.equal(lines.at(-1), 'end')
  assert.equal(lines.slice(0, -1).join(''), 'ä'.repeat(500_000))
  assert.ok(lines.every(line => Buffer.byteLength(line) <= LONGEST_LINE))
})

test('line ends are taken off, also those of Windows; empty lines stay', async () => {
  await using subject = await makeProcessSubject()
  const { lines } = await tell(subject, "printf 'one\\r\\n\\ntwo\\n'")
  assert.deepEqual(lines, ['one', '', 'two'])
})

test('output is shipped while the run lives, to a sink that may be slow', async () => {
  await using subject = await makeProcessSubject()
  const go = join(subject.runsDirectory, '..', 'go')
  const script = 'echo early; while [ ! -e "$1" ]; do sleep 0.05; done; echo late'
  const spec = makeSpec(subject, script, { env: leakMark, words: [go] })
  await subject.prepare(spec.flowRunId)
  const handle = await subject.infrastructure.submit(spec, unstopped)
  const lines: string[] = []
  const takeSlowly = async (more: readonly string[]): Promise<void> => {
    await delay(200)
    lines.push(...more)
  }
  const waiting = subject.infrastructure.wait(handle, takeSlowly, unstopped)
  await until(() => lines.includes('early'))
  await writeFile(go, '')
  await waiting
  assert.deepEqual(lines, ['early', 'late'])
})

test('much output at once is shipped whole while the run lives, though it then says nothing more', async () => {
  await using subject = await makeProcessSubject()
  const go = join(subject.runsDirectory, '..', 'go')
  const script = 'seq 1000000; while [ ! -e "$1" ]; do sleep 0.05; done'
  const spec = makeSpec(subject, script, { env: leakMark, words: [go] })
  await subject.prepare(spec.flowRunId)
  const driver = subject.startAnew({ outputCapBytes: 100_000_000 })
  const handle = await driver.submit(spec, unstopped)
  const lines: string[] = []
  const waiting = driver.wait(handle, more => void lines.push(...more), unstopped)
  await until(() => lines.at(-1) === '1000000')
  await writeFile(go, '')
  await waiting
})

test('what is written while the output is read is not taken for read', async () => {
  // At each of the moments between the reading of the first line and the end of that look.
  for (let turns = 0; turns < 20; turns++) {
    await using directory = await makeDirectory()
    const folder = directory.path
    const file = join(folder, 'output')
    await writeFile(file, 'early\n')
    writePosition(folder, 0, 'test')
    const output = new Output({ folder, capBytes: 1_000_000, isStreamed: true, keeper: 'test' })
    const shipped: string[] = []
    const sink = (lines: readonly string[]) => {
      shipped.push(...lines)
      if (lines.includes('early')) void afterTurns(turns, () => appendFileSync(file, 'late\n'))
    }
    await output.ship(sink, false)
    await setImmediate()
    await output.ship(sink, false)
    assert.deepEqual(shipped, ['early', 'late'], `${turns} turns after the first line`)
  }
})

/** Turns of the microtask queue. */
async function afterTurns(turns: number, work: () => void): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await Promise.resolve()
  work()
}

test('an error of the sink ends the wait and not the run', async () => {
  await using subject = await makeProcessSubject()
  const spec = makeSpec(subject, 'echo one; exit 4', { env: leakMark })
  await subject.prepare(spec.flowRunId)
  const handle = await subject.infrastructure.submit(spec, unstopped)
  await assert.rejects(subject.infrastructure.wait(handle, refuse, unstopped), /no room/)
  const lines: string[] = []
  const exit = await subject.infrastructure.wait(handle, more => void lines.push(...more), unstopped)
  assert.equal(exit.kind === 'exited' && exit.statusCode, 4)
  assert.deepEqual(lines, ['one'])
})

function refuse(): never {
  throw new Error('no room')
}

// As `deployment build --override` leaves it, too.
for (const off of [false, 'false']) {
  test(`with stream_output ${JSON.stringify(off)} nothing is shipped, and the last lines are still told`, async () => {
    await using subject = await makeProcessSubject()
    const { lines, exit } = await tell(subject, 'seq 100; exit 1', { settings: { stream_output: off } })
    assert.deepEqual(lines, [])
    assert.deepEqual(exit.outputTail.slice(-2), ['99', '100'])
    assert.equal(exit.outputTail.length, 20)
  })
}

/**
 * Writes numbered lines, more than the cap, and keeps in step: from time to time it waits until its file has been emptied.
 * By a time, a busy agent could come too late.
 */
const talk = (cap: number) =>
  `i=0; while [ $i -lt 30000 ]; do i=$((i+1)); echo "line $i of a run that talks a lot"; [ $((i%6000)) = 0 ] &&
  while [ $(stat -L -c %s /proc/$$/fd/1) -ge ${cap} ]; do sleep 0.05; done; done; exit 3`

test('at its cap the file is emptied, the stream says so, and no line of a run that keeps in step is lost', async () => {
  await using subject = await makeProcessSubject()
  const { lines, exit, folder } = await tell(subject, talk(300_000), { outputCapBytes: 300_000 })
  const notes = lines.filter(line => line.startsWith('[rigel]'))
  assert.ok(notes.length > 0)
  assert.match(notes[0] ?? '', /output file .* reached its cap of 300000 bytes and was emptied/)
  const numbers = lines.filter(line => line.startsWith('line ')).map(line => Number(line.split(' ')[1]))
  assert.deepEqual(
    numbers,
    numbers.toSorted((a, b) => a - b),
  )
  assert.equal(numbers.at(-1), 30_000)
  assert.ok(statSync(join(folder, 'output')).size < 300_000)
  assert.equal(exit.outputTail.length, 20)
})

test('output that is not streamed keeps to the cap as well, and the last lines survive it', async () => {
  await using subject = await makeProcessSubject()
  const { exit, folder } = await tell(subject, talk(100_000), {
    outputCapBytes: 100_000,
    settings: { stream_output: false },
  })
  assert.ok(existsSync(join(folder, 'earlier')))
  assert.ok(statSync(join(folder, 'output')).size < 100_000)
  assert.equal(exit.outputTail.at(-1), 'line 30000 of a run that talks a lot')
  assert.equal(exit.outputTail.length, 20)
})

test('whatever is cut into lines, in whatever pieces it comes, is put together again', () => {
  const text = fc
    .array(fc.oneof(fc.constant('\n'), fc.string({ unit: 'binary', maxLength: 8 }), fc.constant('ü🐴')))
    .map(parts => parts.join(''))
  fc.assert(
    fc.property(text, fc.array(fc.nat(12)), (written, steps) => {
      const bytes = Buffer.from(written.replaceAll('\r', ''))
      const lines: string[] = []
      let position = 0
      let end = 0
      for (const step of steps) {
        end = Math.min(bytes.length, end + step)
        const cut = splitLines(bytes.subarray(position, end), false)
        lines.push(...cut.lines)
        position += cut.consumed
      }
      lines.push(...splitLines(bytes.subarray(position), true).lines)
      const expected = bytes.toString().split('\n')
      if (expected.at(-1) === '') expected.pop()
      assert.deepEqual(lines, expected)
    }),
  )
})

test('a piece of a long line never ends within a character', () => {
  for (let shift = 0; shift < 4; shift += 1) {
    const bytes = Buffer.from('x'.repeat(shift) + '🐴'.repeat(LONGEST_LINE)).subarray(0, LONGEST_LINE)
    const { lines, consumed } = splitLines(bytes, false)
    assert.equal(lines.length, 1)
    assert.ok(!lines[0]?.includes('\ufffd'))
    assert.equal((consumed - shift) % 4, 0)
  }
})

test('a process that a run leaves behind, and that goes on writing, holds up neither its end nor the other runs', async () => {
  // On a busy machine it may have come to its limit before the end of the run is noticed: then there is another try.
  for (let triesLeft = 4; !(await holdsUpNothing()); triesLeft -= 1) assert.ok(triesLeft > 0, 'it came to its limit')
})

/** False when the process did not go on writing until the end was told. */
async function holdsUpNothing(): Promise<boolean> {
  await using subject = await makeProcessSubject()
  // The limit only keeps a disk that nobody guards from being filled.
  const script = `(ulimit -f 800000; exec yes 'left behind') & echo $! > pid; sleep 0.3; exit 0`
  const spec = makeSpec(subject, script, { env: leakMark })
  await subject.prepare(spec.flowRunId)
  const driver = subject.startAnew({ outputCapBytes: 1_000_000 })
  // Of processor time: that the machine has no turn for us is not the driver's fault.
  let longestTurnMs = 0
  let at = usedMs()
  const timer = setInterval(() => {
    longestTurnMs = Math.max(longestTurnMs, usedMs() - at)
    at = usedMs()
  }, 20)
  const handle = await driver.submit(spec, unstopped)
  const folder = subject.folderOf(spec)
  const output = join(folder, 'output')
  let last = ''
  let size = 0
  const take = (lines: readonly string[]): void => {
    last = lines.at(-1) ?? last
    // At once, for it goes on to grow.
    size = statSync(output).size
  }
  const exit = await driver.wait(handle, take, unstopped)
  clearInterval(timer)
  const pid = Number(await readFile(join(folder, 'cwd', 'pid'), 'utf8'))
  const isWriting = isRunning(pid)
  if (isWriting) process.kill(pid, 'SIGKILL')
  assert.equal(exit.kind === 'exited' && exit.statusCode, 0)
  assert.ok(longestTurnMs < 1_000, `nothing else had a turn for ${longestTurnMs} ms`)
  if (!isWriting) return false
  assert.ok(size < 100_000_000)
  assert.match(last, /were written faster than they could be shipped and are cut/)
  return true
}

/** Processor time of this thread. */
function usedMs(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}

function isRunning(pid: number): boolean {
  return ![undefined, 'Z'].includes(readProcess(pid)?.state)
}
