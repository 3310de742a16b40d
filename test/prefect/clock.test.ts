import assert from 'node:assert/strict'
import test from 'node:test'
import * as fc from 'fast-check'
import { ServerClock } from '../../src/prefect/clock.ts'

/** A server `ahead` milliseconds before us, whose Date may be up to a second old, answers at local time `at`. */
function observe(
  clock: ServerClock,
  { at, ahead, age = 0, trip = 0 }: { at: number; ahead: number; age?: number; trip?: number },
) {
  clock.observe(new Date(at + ahead - age).toUTCString(), at - trip, at + trip)
}

test('a clock that has heard nothing, or nonsense, is ours', () => {
  const clock = new ServerClock()
  clock.observe(undefined, 0, 0)
  clock.observe('yesterday', 0, 0)
  assert.equal(clock.offsetMs, 0)
})

test('however a server that agrees with us rounds its Date, the offset is nothing', () => {
  const answers = fc.array(
    fc.record({
      at: fc.integer({ min: 0, max: 1e9 }),
      age: fc.integer({ min: 0, max: 999 }),
      trip: fc.integer({ min: 0, max: 5000 }),
    }),
  )
  fc.assert(
    fc.property(answers, seen => {
      const clock = new ServerClock()
      for (const answer of seen) observe(clock, { ...answer, ahead: 0 })
      return clock.offsetMs === 0
    }),
  )
})

test('an offset is found to within two seconds, and never on the wrong side', () => {
  const answers = fc.array(fc.record({ at: fc.integer({ min: 0, max: 1e9 }), age: fc.integer({ min: 0, max: 999 }) }), {
    minLength: 1,
  })
  fc.assert(
    fc.property(answers, fc.integer({ min: 2000, max: 1e8 }), fc.boolean(), (seen, distance, isBehind) => {
      const clock = new ServerClock()
      const ahead = isBehind ? -distance : distance
      for (const answer of seen) observe(clock, { ...answer, ahead })
      return Math.abs(clock.offsetMs - ahead) <= 2000 && (isBehind ? clock.offsetMs <= 0 : clock.offsetMs >= 0)
    }),
  )
})

test('a busy server, whose Date is old, is not taken for one that is behind', () => {
  const answers = fc.array(
    fc.record({ wait: fc.integer({ min: 0, max: 1000 }), age: fc.integer({ min: 0, max: 20_000 }) }),
    {
      maxLength: 25,
    },
  )
  fc.assert(
    fc.property(answers, fc.integer({ min: 0, max: 1e8 }), (seen, ahead) => {
      const clock = new ServerClock()
      let at = 1e9
      observe(clock, { at, ahead })
      for (const { wait, age } of seen) {
        at += wait
        observe(clock, { at, age, ahead })
        if (Math.abs(clock.offsetMs - ahead) > 2000 || clock.offsetMs < 0) return false
      }
      return true
    }),
  )
})

test('a server that seems to be behind by what a Date can be old is so for certain when a whole period has said it', () => {
  const clock = new ServerClock()
  const isCertainAt: boolean[] = []
  for (let at = 0; at <= 40_000; at += 10_000) {
    observe(clock, { at, ahead: -10_000 })
    isCertainAt.push(clock.isCertain)
  }
  assert.deepEqual(isCertainAt, [false, false, false, true, true])
})

test('a server that is ahead, or further behind than any Date is old, is so for certain at once', () => {
  for (const ahead of [3000, 3_600_000, -40_000, -3_600_000]) {
    const clock = new ServerClock()
    observe(clock, { at: 1e9, ahead })
    assert.equal(clock.isCertain, true, String(ahead))
  }
})

test('a clock that is set anew is followed', () => {
  const clock = new ServerClock()
  observe(clock, { at: 10_000, ahead: 60_000 })
  observe(clock, { at: 20_000, ahead: 0 })
  assert.equal(clock.offsetMs, 0)
  observe(clock, { at: 30_000, ahead: -60_000 })
  assert.ok(clock.offsetMs < -57_000)
})

test('one that is set back by less than a Date can be old is followed within a minute', () => {
  const clock = new ServerClock()
  observe(clock, { at: 10_000, ahead: 0 })
  for (let at = 20_000; at <= 80_000; at += 10_000) observe(clock, { at, ahead: -20_000 })
  assert.ok(clock.offsetMs < -17_000)
})

test('our own clock may be set, too', () => {
  const clock = new ServerClock()
  observe(clock, { at: 1e9, ahead: 0 })
  observe(clock, { at: 2e9, ahead: -1e9 })
  assert.ok(Math.abs(clock.offsetMs + 1e9) <= 2000)
  observe(clock, { at: 1e9, ahead: 0 })
  assert.equal(clock.offsetMs, 0)
})
