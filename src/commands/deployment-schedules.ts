// Schedules as people write them in a deployment file, turned into those of Prefect's API.

import * as v from 'valibot'
import { UserError } from '../errors.ts'
import { table } from './options.ts'

interface Given {
  readonly schedule?: unknown
  readonly schedules?: readonly unknown[] | null | undefined
  readonly is_schedule_active?: boolean | null | undefined
}

interface NewSchedule {
  readonly schedule: Readonly<Record<string, unknown>>
  readonly active: boolean
}

const timing = {
  timezone: v.nullish(v.string()),
}
const Timing = v.union([
  v.strictObject({ cron: v.string(), day_or: v.nullish(v.boolean()), ...timing }),
  v.strictObject({
    interval: v.pipe(v.number(), v.gtValue(0)),
    anchor_date: v.nullish(v.union([v.string(), v.date()])),
    ...timing,
  }),
  v.strictObject({ rrule: v.string(), ...timing }),
])

/**
 * Reads `schedule` (one, Prefect 2's) and `schedules` (many). Each is a table with `cron`, `interval` (seconds) or `rrule`, alone or
 * under `schedule` beside `active`; a text is a cron line, a number an interval in seconds. Throws a UserError.
 */
export function readSchedules(given: Given, where: string): NewSchedule[] {
  const one = given.schedule === null || given.schedule === undefined ? [] : [given.schedule]
  return [...one, ...(given.schedules ?? [])].map(value => readSchedule(value, given.is_schedule_active ?? true, where))
}

function readSchedule(value: unknown, isActive: boolean, where: string): NewSchedule {
  if (typeof value === 'string') return { schedule: readTiming({ cron: value }, where), active: isActive }
  if (typeof value === 'number') return { schedule: readTiming({ interval: value }, where), active: isActive }
  if (!v.is(table, value)) throw refusal(where)
  const { schedule, active, max_active_runs, max_scheduled_runs, catchup, slug, ...bare } = value
  const rest = dropNulls({ max_active_runs, max_scheduled_runs, catchup, slug })
  return {
    schedule: readTiming(schedule ?? bare, where),
    active: typeof active === 'boolean' ? active : isActive,
    ...rest,
  }
}

function readTiming(value: unknown, where: string): Record<string, unknown> {
  const result = v.safeParse(Timing, value)
  if (!result.success) throw refusal(where)
  return dropNulls(result.output)
}

function dropNulls(value: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).filter(([, part]) => part !== null && part !== undefined))
}

function refusal(where: string): UserError {
  return new UserError(`Could not use ${where}: a schedule has a form that is not known.`, {
    hint: 'Write {cron: "0 6 * * *", timezone: Europe/Berlin}, {interval: 3600} in seconds, or {rrule: "FREQ=DAILY"}.',
  })
}
