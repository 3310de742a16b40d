// What every command gets: the configuration, the signals, and where to write.

import type { Config, ConfigInput } from '../config/config.ts'
import { createLogger, type Logger } from '../logger.ts'

/** The two wishes of whoever stops the program: the first signal aborts `stopping`, the second `kill`. */
export interface Signals {
  /** Take no new work, and end in good order. */
  readonly stopping: AbortSignal
  /** End everything now. */
  readonly kill: AbortSignal
}

/** One of the two standard streams. */
export interface Output {
  readonly isTTY?: boolean
  readonly columns?: number
  write(text: string): unknown
}

export interface Context {
  readonly config: Config
  /** What the configuration was read from, for a command that must read it once more with a value that it has found out. */
  readonly configInput: ConfigInput
  readonly signals: Signals
  /** `json` for programs, `table` for people. */
  readonly format: 'table' | 'json'
  readonly stdout: Output
  readonly stderr: Output
}

/** The reason of an aborted `stopping`: which signal it was. */
export class Interrupted extends Error {
  readonly signal: NodeJS.Signals

  constructor(signal: NodeJS.Signals) {
    super(`interrupted by ${signal}`)
    this.name = 'Interrupted'
    this.signal = signal
  }
}

/** Lines for people: at a terminal, or where the settings say so. */
export function isPretty(config: Config, stdout: Output): boolean {
  const { format } = config.logging
  return format === 'pretty' || (format === 'auto' && stdout.isTTY === true)
}

/** The logger of a daemon: on stdout, in the form and from the level that the settings say. */
export function createDaemonLogger({ config, stdout }: Context): Logger {
  return createLogger({
    level: config.logging.level,
    pretty: isPretty(config, stdout),
    destination: { write: line => void stdout.write(line) },
  })
}

/** The logger of a short command: on stderr, silent unless something is worth a warning. */
export function createCommandLogger({ config, stderr }: Context): Logger {
  const level = config.logging.debug ? 'DEBUG' : 'WARNING'
  return createLogger({ level, pretty: true, destination: { write: line => void stderr.write(line) } })
}
