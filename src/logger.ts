// The one logger, made by a command and handed down; rooms add their fields with `child`.
//
// JSON lines when the output is not a terminal, a short readable line when it is. Messages are constant lower-case
// phrases, data goes into fields, and secrets are redacted as a second fence (the first is not to log them).

import { type DestinationStream, type Logger, pino } from 'pino'

export type { Logger }

/** Prefect's level names (Python's) and ours. */
const LEVELS: Record<string, string> = {
  DEBUG: 'debug',
  INFO: 'info',
  WARNING: 'warn',
  WARN: 'warn',
  ERROR: 'error',
  CRITICAL: 'fatal',
}

export interface LoggerOptions {
  /** A level as Prefect spells it (`INFO`, `WARNING` …), any case. */
  readonly level: string
  /** Readable lines instead of JSON. */
  readonly pretty: boolean
  readonly destination: DestinationStream
}

export function createLogger({ level, pretty, destination }: LoggerOptions): Logger {
  return pino(
    {
      level: LEVELS[level.toUpperCase()] ?? 'info',
      base: null,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: label => ({ level: label }) },
      redact: { paths: ['env', 'headers', 'parameters', 'password', 'key', '*.password', '*.key'], censor: '***' },
    },
    pretty ? prettyStream(destination) : destination,
  )
}

function prettyStream(destination: DestinationStream): DestinationStream {
  return { write: line => destination.write(formatLine(line)) }
}

/** `12:00:00 info  flow run started  flow_run=… pid=12` from pino's JSON line. */
function formatLine(line: string): string {
  const parsed: Record<string, unknown> = JSON.parse(line)
  const { level, time, msg, ...fields } = parsed
  const shown = Object.entries(fields).map(([name, value]) => `${name}=${formatValue(value)}`)
  const clock = String(time).slice(11, 19)
  return `${clock} ${String(level).padEnd(5)} ${[msg, ...shown].join('  ')}\n`
}

function formatValue(value: unknown): string {
  if (typeof value === 'string') return /^[\w./:@+-]+$/.test(value) ? value : JSON.stringify(value)
  if (value && typeof value === 'object' && 'message' in value) return JSON.stringify(value.message)
  return JSON.stringify(value)
}
