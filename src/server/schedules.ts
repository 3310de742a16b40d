// When a schedule is due. Pure: a schedule and a span of time -> points in time.
//
// Intervals of days follow the wall clock of their zone, as do cron expressions: both are stepped over naive local time
// and put into the zone afterwards, as Prefect's server does.

import { Cron } from 'croner'
import * as v from 'valibot'
import { time } from './requests.ts'
import { fromMs, now, toMs } from './time.ts'

const timezone = v.nullish(
  v.pipe(v.string(), v.check(isTimezone, 'Invalid timezone: must be a name of the IANA database')),
  null,
)

/** Empty `anchor_date` is now. */
const IntervalSchedule = v.pipe(
  v.strictObject({
    interval: v.pipe(v.number(), v.minValue(0.001, 'The interval must be positive'), v.maxValue(10 * 366 * 86_400)),
    anchor_date: v.nullish(time, null),
    timezone,
  }),
  v.transform(schedule => ({
    interval: schedule.interval,
    anchor_date: schedule.anchor_date ?? now(),
    timezone: schedule.timezone ?? 'UTC',
  })),
)

const CronSchedule = v.pipe(
  v.strictObject({
    cron: v.pipe(v.string(), v.check(isCron, 'Invalid cron string')),
    timezone,
    day_or: v.nullish(v.boolean(), true),
  }),
  v.transform(schedule => ({ ...schedule, timezone: schedule.timezone ?? 'UTC' })),
)

export const Schedule = v.union(
  [IntervalSchedule, CronSchedule],
  'A schedule has an interval or a cron expression; recurrence rules (rrule) are not supported by this server.',
)
export type Schedule = v.InferOutput<typeof Schedule>

export interface Span {
  /** The first date is at or after this. */
  readonly start: string
  readonly end: string
  /** Stop once there are this many dates and `enough` is reached. */
  readonly atLeast: number
  readonly enough: string
  readonly atMost: number
}

export function datesOf(schedule: Schedule, span: Span): string[] {
  const dates: string[] = []
  const candidates = 'cron' in schedule ? cronDates(schedule, span.start) : intervalDates(schedule, span.start)
  for (const date of candidates) {
    if (dates.length >= span.atMost || date > span.end) break
    if (date < span.start || dates.includes(date)) continue
    dates.push(date)
    if (dates.length >= span.atLeast && date >= span.enough) break
  }
  return dates
}

function* intervalDates(schedule: Extract<Schedule, { interval: number }>, start: string): Generator<string> {
  const anchor = toMs(schedule.anchor_date)
  const stepMs = schedule.interval * 1000
  const isDays = schedule.interval % 86_400 === 0
  // One early, for a change of the clocks can move the first one to before the start.
  const first = Math.floor((toMs(start) - anchor) / stepMs) - 1
  const local = isDays ? toLocal(anchor, schedule.timezone) : anchor
  for (let step = first; ; step++) {
    const at = local + step * stepMs
    yield fromMs(isDays ? fromLocal(at, schedule.timezone) : at)
  }
}

function* cronDates(schedule: Extract<Schedule, { cron: string }>, start: string): Generator<string> {
  const cron = parseCron(schedule.cron, schedule.day_or)
  const from = new Date(toLocal(toMs(start), schedule.timezone) - 1000)
  for (let local = cron.nextRun(from); local !== null; local = cron.nextRun(local)) {
    yield fromMs(fromLocal(local.getTime(), schedule.timezone))
  }
}

/** Runs in UTC over the wall clock. A sixth field is seconds and stands last, as in Prefect's croniter; croner wants it first. */
function parseCron(text: string, dayOr: boolean): Cron {
  const fields = text.trim().split(/\s+/)
  const pattern = fields.length === 6 ? [fields[5], ...fields.slice(0, 5)].join(' ') : fields.join(' ')
  return new Cron(pattern, { timezone: 'UTC', domAndDow: !dayOr, paused: true })
}

function isCron(text: string): boolean {
  try {
    return parseCron(text, true).nextRun() !== null
  } catch {
    return false
  }
}

function isTimezone(name: string): boolean {
  try {
    return new Intl.DateTimeFormat('en-US', { timeZone: name }).resolvedOptions().timeZone !== ''
  } catch {
    return false
  }
}

const formats = new Map<string, Intl.DateTimeFormat>()

function offsetMs(ms: number, timezone: string): number {
  if (timezone === 'UTC') return 0
  const format =
    formats.get(timezone) ?? new Intl.DateTimeFormat('en-US', { timeZone: timezone, timeZoneName: 'longOffset' })
  formats.set(timezone, format)
  const name = format.formatToParts(ms).find(part => part.type === 'timeZoneName')?.value ?? 'GMT'
  const [, sign, hours, minutes, seconds] = /GMT([+-])(\d\d):(\d\d)(?::(\d\d))?/.exec(name) ?? []
  const offset = (Number(hours ?? 0) * 3600 + Number(minutes ?? 0) * 60 + Number(seconds ?? 0)) * 1000
  return sign === '-' ? -offset : offset
}

/** The wall clock of the zone, as if it were UTC. */
function toLocal(ms: number, timezone: string): number {
  return ms + offsetMs(ms, timezone)
}

/** A wall clock time that a change of the clocks skips becomes the one an hour later. */
function fromLocal(localMs: number, timezone: string): number {
  const guess = localMs - offsetMs(localMs, timezone)
  const before = localMs - offsetMs(guess - 3_600_000, timezone)
  return toLocal(before, timezone) === localMs ? before : localMs - offsetMs(guess, timezone)
}
