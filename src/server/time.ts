// Points in time as Prefect's server writes them: UTC, microseconds, `2026-11-22T20:53:47.092439+00:00`.
//
// All times are kept in this one text form, also in the database, so comparing texts is comparing times.

const FORM =
  /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?\s*(Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?)?$/i

/** The years that have four digits, so that comparing texts stays comparing times. */
const FIRST_MS = Date.parse('0001-01-01T00:00:00Z')
const LAST_MS = Date.parse('9999-12-30T00:00:00Z')

let lastMicros = 0

/** Now. Each answer is later than the one before, so states and logs keep the order in which they were written. */
export function now(): string {
  lastMicros = Math.max(lastMicros + 1, Date.now() * 1000)
  return fromMicros(lastMicros)
}

/** Reads any ISO 8601 time, with `T` or a space, with or without offset (then UTC); undefined when it is none. */
export function readTime(text: string): string | undefined {
  const parts = FORM.exec(text.trim())
  if (!parts) return undefined
  const [, year, month, day, hour = '00', minute = '00', second = '00', fraction = '', offset = 'Z'] = parts
  const ms = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`)
  // A 30th of February is taken for a 2nd of March otherwise.
  if (Number.isNaN(ms) || new Date(ms).getUTCDate() !== Number(day)) return undefined
  const utcMs = ms - readOffset(offset)
  if (utcMs < FIRST_MS || utcMs > LAST_MS) return undefined
  return fromMicros(utcMs * 1000 + Number(fraction.padEnd(6, '0').slice(0, 6)))
}

function readOffset(offset: string): number {
  if (offset.toUpperCase() === 'Z') return 0
  const digits = offset.slice(1).replaceAll(':', '').padEnd(4, '0')
  const ms = Number(digits.slice(0, 2)) * 3_600_000 + Number(digits.slice(2, 4)) * 60_000
  return offset.startsWith('-') ? -ms : ms
}

/** From milliseconds since 1970. */
export function fromMs(ms: number): string {
  return fromMicros(Math.round(ms * 1000))
}

function fromMicros(micros: number): string {
  const ms = Math.floor(micros / 1000)
  return `${new Date(ms).toISOString().slice(0, 23)}${String(micros - ms * 1000).padStart(3, '0')}+00:00`
}

/** Milliseconds since 1970, with the microseconds as fraction. Takes a time in this file's form. */
export function toMs(time: string): number {
  return Date.parse(`${time.slice(0, 23)}Z`) + Number(time.slice(23, 26)) / 1000
}

export function addSeconds(time: string, seconds: number): string {
  return fromMs(toMs(time) + seconds * 1000)
}

export function secondsBetween(from: string, to: string): number {
  return (toMs(to) - toMs(from)) / 1000
}
