// Reads how a container ended, and why it could not start, for the person who reads the run's final state. Pure.

import { constants } from 'node:os'
import type { ContainerInfo } from './docker-answers.ts'
import type { Ended } from './docker-events.ts'
import type { Exit } from './infrastructure.ts'

const SIGNAL_BY_NUMBER = new Map(Object.entries(constants.signals).map(([name, number]) => [number, name]))

/** Source: Docker's documentation of exit status, and the shell's conventions. */
const CODE_MEANINGS: Readonly<Record<number, string>> = {
  125: 'often that the engine itself failed',
  126: 'often that a command was found but may not be executed',
  127: 'often that a command, or the interpreter in the first line of a script, was not found',
}

/** Where nothing better is known. */
const SIGNAL_MEANINGS: Readonly<Record<string, string>> = {
  SIGKILL: 'often a person, the kernel when the machine ran out of memory, or a restart of the engine',
  SIGTERM: 'often a person, or a service that was stopped',
  SIGSEGV: 'a fault in native code: it touched memory that is not its own',
  SIGABRT: 'it gave up by itself, often a failed assertion in native code',
}

export function readExit(ended: Ended, outputTail: readonly string[]): Exit {
  const { info } = ended
  if (!info) {
    const why = ended.engineWasAway
      ? 'its container is gone: the engine was away meanwhile and does not know it any more'
      : 'its container is gone: it was removed by somebody else, so how it ended cannot be known'
    return { kind: 'vanished', reason: why, outputTail }
  }
  const { ExitCode: code, Status } = info.State
  if (Status === 'created') return { kind: 'vanished', reason: 'its container was never started', outputTail }
  const signal = code > 128 ? SIGNAL_BY_NUMBER.get(code - 128) : undefined
  const reason = explainEnd(ended, info, signal, outputTail)
  return { kind: 'exited', statusCode: signal === undefined ? code : undefined, signal, reason, outputTail }
}

function explainEnd(
  ended: Ended,
  info: ContainerInfo,
  signal: string | undefined,
  outputTail: readonly string[],
): string | undefined {
  const { ExitCode: code, OOMKilled, Error: engineError } = info.State
  const reasons: string[] = []
  if (OOMKilled) reasons.push(`out of memory: the container went over ${memoryLimit(info)} (OOMKilled)`)
  else if (ended.signals.length > 0) reasons.push(`${describeSignals(ended.signals)} was sent to it through the engine`)
  else if (code !== 0 && ended.engineWasAway) {
    reasons.push('the Docker engine was restarted while it ran, which ends containers unless live-restore is on')
  }
  if (signal !== undefined) {
    const guess = reasons.length === 0 ? SIGNAL_MEANINGS[signal] : undefined
    reasons.push(`${signal} ended it${guess ? ` (${guess})` : ''}, or it exited with code ${code} by itself`)
  }
  const meaning = CODE_MEANINGS[code]
  if (meaning) reasons.push(`exit code ${code} means ${meaning}`)
  if (code === 255 && ended.engineWasAway) reasons.push('255 is what the engine notes when it missed the end')
  if (engineError) reasons.push(`the engine says: ${engineError}`)
  if (code !== 0) reasons.push(...explainOutput(outputTail, info.Config.Image))
  return reasons.length > 0 ? reasons.join('; ') : undefined
}

function memoryLimit(info: ContainerInfo): string {
  const bytes = info.HostConfig.Memory
  return bytes > 0 ? `its limit of ${Math.round(bytes / 1_048_576)} MiB` : 'what its machine has'
}

function describeSignals(numbers: readonly string[]): string {
  const names = numbers.map(number => SIGNAL_BY_NUMBER.get(Number(number)) ?? `signal ${number}`)
  return [...new Set(names)].join(', then ')
}

function explainOutput(outputTail: readonly string[], image: string): string[] {
  const text = outputTail.join('\n')
  if (/No module named '?prefect\b/.test(text)) return [`image "${image}" lacks Prefect; install it there`]
  return []
}

/** A sentence for the start call's refusal, with what to do where that is known. */
export function explainStartFailure(message: string, command: string, image: string): string {
  const where = `Could not start "${command}" in image "${image}"`
  const text = message.replace(/^.*?(?:OCI runtime create failed|failed to create (?:shim|task)[^:]*): */s, '')
  if (/executable file not found|no such file or directory/i.test(message) && message.includes(command)) {
    const program = command.split('/').at(-1) ?? command
    if (/^python[\d.]*$/.test(program)) {
      return `${where}: the image lacks Python (no "${command}" on its PATH). Use an image with Python and Prefect, or name the interpreter in RIGEL_PYTHON.`
    }
    if (program === 'prefect') return `${where}: the image lacks Prefect (no "prefect" on its PATH).`
    return `${where}: there is no such command in the image.`
  }
  if (/permission denied/i.test(message)) return `${where}: it may not be executed there (permission denied).`
  if (/port is already allocated|address already in use/i.test(message)) {
    return `${where}: a port that it publishes is taken on the engine's machine: ${text}`
  }
  // Of the runtime below an engine that was killed before it had noted the start. It cannot end what it does not know.
  if (/\bid already in use\b/i.test(message)) {
    return `${where}: the engine was ended in the middle of starting it and has lost sight of it; what was started may still run on its machine: ${text}`
  }
  return `${where}: ${text}`
}

/**
 * The engine has lost patience with its own runtime, as on a busy machine, while that made the container ready. Nothing of it
 * has run: the runtime is told to start it in a step of its own, after this one.
 */
export function isTooLate(message: string): boolean {
  return /failed to create (?:shim |containerd )?task\b.*context deadline exceeded/is.test(message)
}

/** Trouble of the engine's machine, which another run would meet as well. */
export function isHostTrouble(message: string): boolean {
  return /no space left on device|cannot allocate memory|too many open files|read-only file system|disk quota/i.test(
    message,
  )
}
