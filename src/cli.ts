// The way in: argv becomes a command, OS signals become AbortSignals, the end becomes an exit code.
//
// Only this file reads argv, hears signals and sets the exit code. What a command does stands in commands/.
//
//   first SIGINT, SIGTERM or SIGHUP   aborts `stopping`: a daemon drains, another command gives up
//   second                            aborts `kill`: a daemon ends its runs; another command is ended
//   third                             ends the process whatever it is doing

import { Command, CommanderError, Option } from 'commander'
import type { CommandRow } from './commands/command-row.ts'
import { commands } from './commands/commands.ts'
import { type Context, Interrupted } from './commands/context.ts'
import type { Options } from './commands/options.ts'
import { outputForms, spellOut } from './commands/spelling.ts'
import { type ConfigInput, readConfig } from './config/config.ts'
import { USAGE_ERROR } from './config/config-error.ts'
import { allSettings, type NamedSetting } from './config/settings.ts'
import { describeError, UserError } from './errors.ts'
import { readVersion } from './version.ts'

/** What a shell reports for a process that a signal has ended: 128 and the signal's number. */
const SIGNAL_CODES: Readonly<Record<string, number>> = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 }
/** Whoever read our output has gone; not an error of ours. */
const BROKEN_PIPE_CODE = 141

/** Set once a daemon runs. Its log is not worth its runs: where it cannot be written any more, its lines are dropped. */
let isDaemonRunning = false

async function main(argv: readonly string[]): Promise<void> {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (isDaemonRunning) return
      if (error.code === 'EPIPE') process.exit(BROKEN_PIPE_CODE)
      throw error
    })
  }
  const program = buildProgram()
  try {
    await program.parseAsync(spellOut(argv), { from: 'user' })
  } catch (error) {
    process.exitCode = report(error, isDebugging(program))
  }
}

function buildProgram(): Command {
  const program = new Command('rigel')
    .description('An agent daemon for Prefect: it polls work queues and runs what is due.')
    .version(readVersion(), '-v, --version')
    .option('--config <file>', 'TOML file of settings')
    .option('--debug', 'log from DEBUG on, and show the stack of errors')
    .addOption(
      new Option('-o, --output <form>', 'table for people, json for programs').choices(outputForms).default('table'),
    )
    .addOption(buildSettingOption(findSetting('prefect.profile')))
    .showHelpAfterError('(--help shows what is possible)')
    .addHelpText('after', '\nEvery setting is also a flag, for example --api URL: see docs/configuration.md.')
    .exitOverride()
  for (const row of commands) addCommand(program, row)
  return program
}

function addCommand(program: Command, row: CommandRow): void {
  const words = row.path.split(' ')
  const name = words.pop() ?? ''
  let parent = program
  for (const word of words) {
    parent =
      parent.commands.find(command => command.name() === word) ??
      parent.command(word).description(describeGroup(word)).exitOverride()
  }
  const command = parent.command(name).description(row.doc).exitOverride()
  if (row.args) command.arguments(row.args)
  for (const { flags, doc, repeat, aliases } of row.options ?? []) {
    const option = new Option(flags, aliases === undefined ? doc : `${doc} Also: ${aliases.join(', ')}`)
    command.addOption(repeat ? option.argParser(collect) : option)
  }
  for (const setting of allSettings) {
    const isTaken = command.options.some(option => option.long === setting.flag) || isGlobal(setting)
    if (row.settings.some(section => section === setting.section) && !isTaken) {
      command.addOption(buildSettingOption(setting).hideHelp(!isShown(setting)))
    }
  }
  command.action(async () => run(row, command))
}

function describeGroup(word: string): string {
  return (
    {
      config: 'The settings.',
      agent: 'The agent.',
      server: 'The embedded server.',
      cache: 'The cache of fetched code.',
    }[word] ?? `Work with ${word.replace('-', ' ')}s.`
  )
}

function buildSettingOption(setting: NamedSetting): Option {
  const word = setting.kind.isSecret ? 'file' : 'value'
  const flags = setting.short === undefined ? setting.flag : `${setting.short}, ${setting.flag}`
  return new Option(`${flags} <${word}>`, setting.doc)
}

function findSetting(key: string): NamedSetting {
  const setting = allSettings.find(setting => setting.key === key)
  if (!setting) throw new Error(`there is no setting ${key}`)
  return setting
}

/** Options of the program itself, which every command takes. */
function isGlobal(setting: NamedSetting): boolean {
  return setting.key === 'prefect.profile' || setting.key === 'logging.debug'
}

/** Flags with a name of their own are those that people type; the others would bury them in the help. */
function isShown({ key, flag, kind }: NamedSetting): boolean {
  return !kind.isSecret && flag !== `--${key.replace(/[._]/g, '-')}`
}

function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value]
}

async function run(row: CommandRow, command: Command): Promise<void> {
  const options = command.optsWithGlobals<Options>()
  const args = command.processedArgs.flat().filter(argument => typeof argument === 'string')
  const configInput = buildConfigInput(row, args, options)
  const context: Context = {
    config: readConfig(configInput),
    configInput,
    signals: hearSignals(row.isDaemon === true),
    format: options.output === 'json' ? 'json' : 'table',
    stdout: process.stdout,
    stderr: process.stderr,
  }
  isDaemonRunning = row.isDaemon === true
  // A daemon has a log for them.
  if (!row.isDaemon) for (const warning of context.config.warnings) process.stderr.write(`warning: ${warning}\n`)
  process.exitCode = (await row.run(context, { args, options })) ?? 0
}

function buildConfigInput(row: CommandRow, args: readonly string[], options: Options): ConfigInput {
  const flags: Record<string, string> = {}
  for (const setting of allSettings) {
    const value =
      isGlobal(setting) || row.settings.some(section => section === setting.section)
        ? options[buildSettingOption(setting).attributeName()]
        : undefined
    if (typeof value === 'string') flags[setting.key] = value
    else if (value === true) flags[setting.key] = 'true'
  }
  const configFile = row.readsConfigArgument ? (args[0] ?? options.config) : options.config
  const home = row.isolatedBy && (options[row.isolatedBy.option] ?? row.isolatedBy.byDefault)
  return {
    flags,
    ...(typeof configFile === 'string' ? { configFile } : {}),
    ...(typeof home === 'string' ? { isolatedHome: home } : {}),
  }
}

function hearSignals(isDaemon: boolean): Context['signals'] {
  const stopping = new AbortController()
  const kill = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (!stopping.signal.aborted) stopping.abort(new Interrupted(signal))
      else if (isDaemon && !kill.signal.aborted) kill.abort(new Interrupted(signal))
      else process.exit(SIGNAL_CODES[signal])
    })
  }
  return { stopping: stopping.signal, kill: kill.signal }
}

/** Says what went wrong, in one sentence and a hint, and gives the exit code. */
function report(error: unknown, withStack: boolean): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE_ERROR
  if (error instanceof Interrupted) return SIGNAL_CODES[error.signal] ?? 1
  process.stderr.write(`error: ${error instanceof UserError ? error.message : describeError(error)}\n`)
  if (error instanceof UserError && error.hint !== undefined) process.stderr.write(`hint: ${error.hint}\n`)
  if (withStack && error instanceof Error) process.stderr.write(`${describeStack(error)}\n`)
  else if (!(error instanceof UserError)) process.stderr.write('hint: --debug shows where it happened.\n')
  return error instanceof UserError ? error.exitCode : 1
}

function describeStack(error: Error): string {
  const stack = error.stack ?? error.message
  return error.cause instanceof Error ? `${stack}\ncaused by: ${describeStack(error.cause)}` : stack
}

function isDebugging(program: Command): boolean {
  return program.opts<Options>().debug === true
}

await main(process.argv.slice(2))
