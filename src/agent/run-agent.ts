// From options to a running agent: its state folder, alone in it, with the journal of its earlier lives.

import { accessSync, constants, mkdirSync } from 'node:fs'
import { describeError, UserError } from '../errors.ts'
import { Agent, type AgentOptions, type AgentSignals } from './agent.ts'
import { readIdentity } from './identity.ts'
import { Journal } from './journal.ts'
import { readHolder, StateLock } from './lock.ts'

/** Runs the agent until it is told to stop; returns how many runs were let go or are not reported yet. */
export async function runAgent(options: AgentOptions, signals: AgentSignals): Promise<{ left: number }> {
  makeStateDirectory(options.stateDirectory)
  const lock = await takeLock(options, signals.stopping)
  if (!lock) return { left: 0 }
  using _lock = lock
  const journal = new Journal(options.stateDirectory, options.logger)
  await journal.open()
  const agent = new Agent(options, journal, lock, readIdentity(options.stateDirectory, options.name))
  return await agent.run(signals) // awaited here, or the lock would be given back at once
}

function makeStateDirectory(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    accessSync(path, constants.W_OK)
  } catch (error) {
    throw new UserError(`The state folder ${path} cannot be used: ${describeError(error)}.`, {
      hint: 'Name another one with RIGEL_STATE_DIR, or make this one writable for the user that the agent runs as.',
      exitCode: 2,
      cause: error,
    })
  }
}

async function takeLock(options: AgentOptions, stopping: AbortSignal): Promise<StateLock | undefined> {
  if (options.waitForLock) return StateLock.wait(options.stateDirectory, options.logger, stopping)
  const lock = StateLock.take(options.stateDirectory)
  if (lock) return lock
  const holder = readHolder(options.stateDirectory)
  throw new UserError(
    `Another agent${holder ? ` (process ${holder.pid} on ${holder.host})` : ''} uses the state folder ${options.stateDirectory}.`,
    {
      hint: 'Stop it first, leave out --no-wait to take over from it, or give this agent a folder of its own (RIGEL_STATE_DIR).',
    },
  )
}
