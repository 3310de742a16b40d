// Output arrives as it was written: split characters, very long lines, terminals, over restarts of the agent.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { chmod, copyFile, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { suite } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { RunSpec } from '../../src/infrastructure/infrastructure.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { makeDockerSubject, type SubjectOptions, unstopped } from './docker-subject.ts'

const options = { ...needs('docker'), timeout: 120_000 }

async function linesOf(script: string, subjectOptions: SubjectOptions = {}, spec: Partial<RunSpec> = {}) {
  await using subject = await makeDockerSubject(subjectOptions)
  const handle = await subject.infrastructure.submit(await subject.spec(script, spec), unstopped)
  const lines: string[] = []
  const exit = await subject.infrastructure.wait(handle, batch => void lines.push(...batch), unstopped)
  return { lines, exit }
}

/** One odd byte first, so that two-byte characters lie across every boundary of 16 KiB. */
const wideLine = (count: number) => `x${'äöü€'.repeat(count)}`
const printWide = (count: number) =>
  `awk 'BEGIN { printf "x"; for (i = 0; i < ${count}; i++) printf "äöü€"; print "" }'`

const keepsBytes = { container_create: { HostConfig: { LogConfig: { Type: 'local' } } } }

// Most of their time they wait.
suite('output of containers', { ...needs('docker'), concurrency: 4 }, () => {
  test('a character that is written in two halves arrives whole', options, async () => {
    const { lines } = await linesOf(
      "printf 'a\\303'; sleep 0.3; printf '\\244b\\n'; printf '\\342\\202'; sleep 0.2; printf '\\254'",
    )
    assert.deepEqual(lines, ['aäb', '€'])
  })

  test('a line of 1 MiB arrives whole', options, async () => {
    const { lines } = await linesOf(`head -c 1048575 /dev/zero | tr '\\0' 'a'; echo; echo after`)
    assert.deepEqual(
      lines.map(line => line.length),
      [1_048_575, 5],
    )
  })

  test('a line of more than 1 MiB arrives split, with every character', options, async () => {
    const count = 300_000
    const { lines } = await linesOf(printWide(count), { settings: keepsBytes })
    assert.ok(lines.length > 1 && lines.every(line => Buffer.byteLength(line) <= 1_100_000))
    assert.ok(lines.join('') === wideLine(count))
  })

  test('long lines of wide characters arrive intact from a log driver that keeps bytes', options, async () => {
    const { lines } = await linesOf(`${printWide(20_000)}; echo after`, { settings: keepsBytes })
    assert.ok(lines[0] === wideLine(20_000))
    assert.deepEqual(lines.slice(1), ['after'])
  })

  test('json-file, which repairs halves of characters every 16 KiB, costs no more than these', options, async () => {
    const { lines } = await linesOf(`${printWide(20_000)}; echo after`)
    const expected = wideLine(20_000)
    assert.equal(lines.length, 2)
    assert.equal(lines[0]?.replaceAll(/�+/g, '?').length, expected.length)
  })

  test('with a terminal, lines arrive without carriage returns, the longest too', options, async () => {
    const settings = { container_create_kwargs: { tty: true } }
    const { lines, exit } = await linesOf(
      `echo one; head -c 100000 /dev/zero | tr '\\0' 'b'; echo; echo two; printf three`,
      {
        settings,
      },
    )
    assert.deepEqual(
      lines.map(line => (line.length > 10 ? createHash('md5').update(line).digest('hex') : line)),
      ['one', createHash('md5').update('b'.repeat(100_000)).digest('hex'), 'two', 'three'],
    )
    assert.equal(exit.outputTail.at(-1), 'three')
  })

  test('both streams arrive, each in its order, while the other is in the midst of a long line', options, async () => {
    const script = `(head -c 40000 /dev/zero | tr '\\0' 'c'; sleep 2; echo end) & sleep 0.5; for i in 1 2 3; do echo err $i >&2; done; wait`
    const { lines } = await linesOf(script)
    assert.deepEqual(
      lines.filter(line => line.startsWith('err')),
      ['err 1', 'err 2', 'err 3'],
    )
    assert.ok(lines.filter(line => !line.startsWith('err')).join('') === `${'c'.repeat(40_000)}end`)
  })

  test(
    'without stream_output nothing is shipped, and the last lines of a failure are told all the same',
    options,
    async () => {
      const { lines, exit } = await linesOf('echo one; echo two; exit 2', { settings: { stream_output: false } })
      assert.deepEqual(lines, [])
      assert.deepEqual(exit.outputTail, ['one', 'two'])
    },
  )

  test('a log driver that keeps nothing does not hold up the end', options, async () => {
    const settings = { container_create: { HostConfig: { LogConfig: { Type: 'none' } } } }
    const { lines, exit } = await linesOf('echo one; exit 3', { settings })
    assert.deepEqual(lines, [])
    assert.equal(exit.kind === 'exited' && exit.statusCode, 3)
  })

  test('agents that come and go every moment ship each line of both streams exactly once', options, async () => {
    await using subject = await makeDockerSubject()
    // Bursts of equal times, long lines, both streams.
    const script = `i=0; while [ $i -lt 400 ]; do echo out $i; echo err $i >&2; [ $((i % 50)) = 0 ] && { head -c 20000 /dev/zero | tr '\\0' 'x'; echo " out $i"; }; [ $((i % 20)) = 0 ] && sleep 0.3; i=$((i+1)); done`
    const handle = await subject.infrastructure.submit(await subject.spec(script), unstopped)
    const lines: string[] = []
    for (let life = 0; ; life++) {
      const stop = new AbortController()
      const waiting = subject
        .startAnew()
        .wait(handle, batch => void lines.push(...batch), stop.signal)
        .catch(() => undefined)
      // Longer and longer, for on a busy machine a moment may be too short to read anything.
      const lifeMs = (100 + 60 * (life % 9)) * 1.03 ** life
      const exit = await Promise.race([waiting, delay(lifeMs).then(() => undefined)])
      if (exit) break
      stop.abort(new Error('the agent ends'))
      await waiting
    }
    const numbers = Array.from({ length: 400 }, (_, index) => index)
    const short = (prefix: string) => lines.filter(line => line.startsWith(prefix))
    assert.deepEqual(
      short('out'),
      numbers.map(n => `out ${n}`),
    )
    assert.deepEqual(
      short('err'),
      numbers.map(n => `err ${n}`),
    )
    // A long line that two lives have seen parts of may arrive split, but whole.
    const long = lines.filter(line => !/^(out|err)/.test(line)).join('')
    assert.equal(long, [0, 50, 100, 150, 200, 250, 300, 350].map(n => `${'x'.repeat(20_000)} out ${n}`).join(''))
  })

  test(
    'an agent that is killed behind the position it has noted neither loses nor doubles a line',
    options,
    async () => {
      await using subject = await makeDockerSubject()
      // Told to go on by its kill: by a time, the last line could come before the end of the first agent.
      const script = "trap 'echo end; exit 0' TERM; for i in $(seq 200); do echo $i; done; sleep 600 & wait"
      const spec = await subject.spec(script)
      const handle = await subject.infrastructure.submit(spec, unstopped)
      const lines: string[] = []
      const stop = new AbortController()
      const waiting = subject.infrastructure
        .wait(handle, batch => void lines.push(...batch), stop.signal)
        .catch(() => undefined)
      const position = join(subject.runsDirectory, handle.flowRunId, `docker-${handle.attempt}.json`)
      // Noted behind the last of them: a look at the clock may have begun the count anew.
      await until(async () => {
        const { count, since } = JSON.parse(await readFile(position, 'utf8'))
        return lines.length === 200 && (count === 200 || since !== '')
      })
      await copyFile(position, `${position}.copy`)
      stop.abort(new Error('the agent ends'))
      await waiting
      await copyFile(`${position}.copy`, position)
      await chmod(position, 0o600)
      const next = subject.startAnew()
      const ended = next.wait(handle, batch => void lines.push(...batch), unstopped)
      await next.kill(handle, 30, unstopped)
      await ended
      assert.deepEqual(lines, [...Array.from({ length: 200 }, (_, index) => String(index + 1)), 'end'])
    },
  )
})
