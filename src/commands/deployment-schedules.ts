// Schedules as people write them in a deployment file, turned into those of Prefect's API.

import * as v from 'valibot'
import { ConfigError } from '../config/config-error.ts'
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

interface Flags {
  readonly cron?: string | undefined
  readonly interval?: number | undefined
  readonly anchorDate?: string | undefined
  readonly rrule?: string | undefined
  readonly timezone?: string | undefined
  /** False with --no-schedule. */
  readonly schedule: boolean
}

/** The schedules of a call with all the fields that Prefect writes; undefined when it says nothing of them. */
export function buildSchedules(flags: Flags, now: Date): readonly NewSchedule[] | undefined {
  const { cron, interval, anchorDate, rrule, timezone, schedule } = flags
  const given = [cron, interval, rrule].filter(value => value !== undefined).length + (schedule ? 0 : 1)
  if (given > 1) throw new ConfigError('Give one of --cron, --interval, --rrule and --no-schedule.')
  if (anchorDate !== undefined && interval === undefined) throw new ConfigError('--anchor-date goes with --interval.')
  if (!schedule) return []
  if (cron !== undefined) return [{ schedule: { cron, timezone: timezone ?? null, day_or: true }, active: true }]
  if (interval !== undefined) {
    const anchor_date = readAnchor(anchorDate, now)
    return [{ schedule: { interval, anchor_date, timezone: timezone ?? 'UTC' }, active: true }]
  }
  if (rrule !== undefined) return [{ schedule: readRule(rrule, timezone), active: true }]
  if (timezone !== undefined) throw new ConfigError('--timezone goes with --cron, --interval or --rrule.')
  return undefined
}

/** A time without a zone is UTC, as in Prefect; a date alone its first moment. */
function readAnchor(given: string | undefined, now: Date): string {
  if (given === undefined) return now.toISOString()
  const hasZone = /(?:Z|[+-]\d\d:?\d\d)$/i.test(given)
  const time = new Date(given.includes(':') && !hasZone ? `${given}Z` : given)
  if (!/^\d{4}-\d\d-\d\d/.test(given) || Number.isNaN(time.valueOf())) {
    throw new ConfigError(
      `--anchor-date is "${given}", but a date such as 2024-01-31 or 2024-01-31T06:00 was expected.`,
    )
  }
  return time.toISOString().replace(/(?:\.000)?Z$/, '+00:00')
}

/** The rule itself, or Prefect's form of it in JSON: `{"rrule": …, "timezone": …}`. */
function readRule(given: string, timezone: string | undefined): Record<string, unknown> {
  const { rrule = given, timezone: own } = readRuleTable(given)
  if (/\bCOUNT\b/i.test(rrule)) {
    throw new ConfigError('A rule with COUNT would begin anew with each look at it.', { hint: 'Give it an UNTIL.' })
  }
  return { rrule, timezone: timezone ?? own ?? 'UTC' }
}

const RuleTable = v.strictObject({ rrule: v.string(), timezone: v.nullish(v.string()) })

function readRuleTable(given: string): Partial<v.InferOutput<typeof RuleTable>> {
  if (!given.trimStart().startsWith('{')) return {}
  const result = v.safeParse(v.pipe(v.string(), v.parseJson(), RuleTable), given)
  if (result.success) return result.output
  throw new ConfigError('--rrule is neither a rule nor {"rrule": …, "timezone": …}.')
}
