import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as v from 'valibot'
import { datesOf, Schedule } from '../../src/server/schedules.ts'
import { readTime } from '../../src/server/time.ts'

function at(text: string): string {
  const time = readTime(text)
  assert.ok(time, text)
  return time
}

function firstDates(given: object, start: string, count: number): string[] {
  const span = { start: at(start), end: at('2100-01-01'), enough: at(start), atLeast: count, atMost: count }
  return datesOf(v.parse(Schedule, given), span).map(date => date.replace('.000000+00:00', 'Z'))
}

test('an interval counts from its anchor', () => {
  const hourly = { interval: 3600, anchor_date: '2026-01-01T00:10:00Z' }
  assert.deepEqual(firstDates(hourly, '2026-06-01T10:10:00Z', 2), ['2026-06-01T10:10:00Z', '2026-06-01T11:10:00Z'])
  assert.deepEqual(firstDates(hourly, '2026-06-01T10:10:01Z', 1), ['2026-06-01T11:10:00Z'])
  assert.deepEqual(firstDates(hourly, '2025-06-01T10:10:01Z', 1), ['2025-06-01T11:10:00Z'], 'also before the anchor')
})

test('an interval of days keeps the time on the wall, one of hours does not', () => {
  const anchor = { anchor_date: '2026-03-27T08:00:00Z', timezone: 'Europe/Berlin' }
  assert.deepEqual(firstDates({ interval: 86_400, ...anchor }, '2026-03-28T00:00:00Z', 2), [
    '2026-03-28T08:00:00Z',
    '2026-03-29T07:00:00Z',
  ])
  assert.deepEqual(firstDates({ interval: 43_200, ...anchor }, '2026-03-28T21:00:00Z', 1), ['2026-03-29T08:00:00Z'])
})

test('a cron schedule is read on the wall clock of its zone', () => {
  const daily = { cron: '0 9 * * *', timezone: 'America/New_York' }
  assert.deepEqual(firstDates(daily, '2026-03-07T00:00:00Z', 3), [
    '2026-03-07T14:00:00Z',
    '2026-03-08T13:00:00Z',
    '2026-03-09T13:00:00Z',
  ])
  assert.deepEqual(firstDates({ cron: '*/15 * * * *' }, '2026-01-01T00:15:00Z', 1), ['2026-01-01T00:15:00Z'])
})

test('day of month and day of week are joined by or, unless day_or says otherwise', () => {
  const friday13 = { cron: '0 0 13 * 5' }
  assert.deepEqual(firstDates(friday13, '2026-02-01T00:00:00Z', 2), ['2026-02-06T00:00:00Z', '2026-02-13T00:00:00Z'])
  assert.deepEqual(firstDates({ ...friday13, day_or: false }, '2026-02-14T00:00:00Z', 1), ['2026-03-13T00:00:00Z'])
})

test('a sixth field of a cron schedule is seconds', () => {
  assert.deepEqual(firstDates({ cron: '0 0 * * * 30' }, '2026-01-01T00:00:00Z', 1), ['2026-01-01T00:00:30Z'])
})

test('planning stops when both the number and the time are enough', () => {
  const schedule = v.parse(Schedule, { interval: 600, anchor_date: '2026-01-01T00:00:00Z' })
  const span = { start: at('2026-01-01'), end: at('2027-01-01'), enough: at('2026-01-01T01:00:00Z'), atLeast: 3 }
  assert.equal(datesOf(schedule, { ...span, atMost: 100 }).length, 7)
  assert.equal(datesOf(schedule, { ...span, atMost: 5 }).length, 5)
  assert.equal(datesOf(schedule, { ...span, atMost: 100, end: at('2026-01-01T00:15:00Z') }).length, 2)
})

test('schedules that mean nothing are refused, recurrence rules with a sentence', () => {
  for (const given of [
    { cron: 'often' },
    { cron: '0 0 30 2 *' },
    { interval: 0 },
    { interval: 60, timezone: 'Mars' },
  ]) {
    assert.equal(v.safeParse(Schedule, given).success, false, JSON.stringify(given))
  }
  const rule = v.safeParse(Schedule, { rrule: 'FREQ=DAILY' })
  assert.match(rule.issues?.[0].message ?? '', /rrule.* not supported/)
})

test('times are read in all the ways that clients write them', () => {
  const expected = '2026-11-24T10:00:00.123456+00:00'
  for (const text of [
    '2026-11-24T10:00:00.123456+00:00',
    '2026-11-24T10:00:00.123456Z',
    '2026-11-24 10:00:00.123456+00:00',
    '2026-11-24T12:00:00.123456+02:00',
    '2026-11-24T05:30:00.123456-0430',
    '2026-11-24T10:00:00.123456',
  ]) {
    assert.equal(readTime(text), expected, text)
  }
  for (const text of ['', 'soon', '2026-13-01', '2026-02-30', '2026-11-24T25:00:00Z']) {
    assert.equal(readTime(text), undefined, text)
  }
})
