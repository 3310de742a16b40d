// What a command is: a row of the table in commands.ts.

import type { Section } from '../config/settings.ts'
import type { Context } from './context.ts'
import type { Call } from './options.ts'

export interface OptionRow {
  /** As commander reads it: `-q, --work-queue <name>`. */
  readonly flags: string
  readonly doc: string
  /** May be given many times. */
  readonly repeat?: boolean
  /** Names that commander would not take: short ones of two letters, as Prefect's `-sb`, and those of the program's own options. */
  readonly aliases?: readonly string[]
  /** It is also what `-o` and `--output` name, as in Prefect's command, when they name no form of output. */
  readonly isOutput?: boolean
  /** It takes NAME=VALUE, and every flag that the command does not know is such a name. */
  readonly isAnyFlag?: boolean
}

export interface CommandRow {
  /** Words of the command: `agent start`. */
  readonly path: string
  /** As commander reads it: `<file>`, `[name]`, `<files...>`. */
  readonly args?: string
  readonly doc: string
  readonly options?: readonly OptionRow[]
  /** Sections of the settings whose flags it takes. */
  readonly settings: readonly Section[]
  /** It goes on until it is told to stop, and hears both signals. */
  readonly isDaemon?: boolean
  /** The option that names a home of its own: then the user's Prefect settings are not looked at. */
  readonly isolatedBy?: { readonly option: string; readonly byDefault: string }
  /** An argument that is the configuration file, instead of `--config`. */
  readonly readsConfigArgument?: boolean
  /** Resolves to the exit code, by default 0. */
  readonly run: (context: Context, call: Call) => Promise<number> | Promise<void>
}

/** What every command takes that talks to a Prefect API. */
export const api = ['prefect', 'api', 'proxy', 'logging'] as const
export const everything = [
  ...api,
  'paths',
  'agent',
  'process',
  'status',
  'storage',
  'cleanup',
  'server',
] as const satisfies readonly Section[]
