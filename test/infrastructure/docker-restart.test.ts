// The engine itself is killed and started again under living runs. It is an engine of this file's own, so that no other
// test loses its containers.

import assert from 'node:assert/strict'
import test from 'node:test'
import { needs } from '../support/requires.ts'
import { OwnEngine } from './docker-engine.ts'
import { unstopped } from './docker-subject.ts'

const own = { name: 'fragile', subnet: '172.30.90' }
const options = { ...needs('docker', 'root'), timeout: 240_000 }

test(
  'an engine that was killed and restarted: its runs are reported with that reason within 15 s',
  options,
  async t => {
    await using engine = await OwnEngine.start(own)
    await using subject = await engine.subject()
    const spec = await subject.spec('echo said; sleep 300')
    const handle = await subject.infrastructure.submit(spec, unstopped)
    const waiting = subject.infrastructure.wait(handle, () => {}, unstopped)
    await engine.do('kill')
    await engine.do('start')
    const began = performance.now()
    const exit = await waiting
    t.diagnostic(`known ${Math.round(performance.now() - began)} ms after the engine answered: ${JSON.stringify(exit)}`)
    assert.ok(performance.now() - began < 15_000)
    assert.equal(exit.kind, 'exited')
    assert.match(exit.reason ?? '', /engine was restarted while it ran/)
    assert.deepEqual(exit.outputTail, ['said'])
    // The next agent has not seen the engine go; it says no more than it knows.
    const told = await subject.startAnew().wait(handle, () => {}, unstopped)
    assert.equal(told.kind, 'exited')
  },
)

test('with live-restore, runs go on under a restarted engine and end as they end', options, async () => {
  await using engine = await OwnEngine.start({ ...own, flags: '--live-restore' })
  await using subject = await engine.subject()
  const lines: string[] = []
  const spec = await subject.spec('i=0; while [ $i -lt 12 ]; do echo line $i; i=$((i+1)); sleep 1; done; exit 8')
  const handle = await subject.infrastructure.submit(spec, unstopped)
  const waiting = subject.infrastructure.wait(handle, batch => void lines.push(...batch), unstopped)
  await engine.do('kill')
  await engine.do('start')
  const exit = await waiting
  assert.equal(exit.kind === 'exited' && exit.statusCode, 8)
  assert.deepEqual(new Set(lines).size, lines.length, 'no line twice')
  assert.equal(lines.at(-1), 'line 11')
  // What is written while no engine reads it stays in the pipe, and is logged afterwards.
  assert.equal(lines.length, 12)
})
