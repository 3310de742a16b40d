// What an exit code means, for the person who reads why a run crashed. Pure.

import { constants } from 'node:os'
import type { Exited } from './infrastructure.ts'

/** Without the second names that two numbers have for old programs. */
const SIGNAL_BY_NUMBER = new Map(
  Object.entries(constants.signals)
    .filter(([name]) => name !== 'SIGIOT' && name !== 'SIGPOLL')
    .map(([name, number]) => [number, name]),
)

const SIGNAL_MEANINGS: Readonly<Record<string, string>> = {
  SIGKILL: 'often the kernel, when memory ran out, or a person or service manager that ended it by force',
  SIGTERM: 'often a cancellation or a service manager that asked it to end',
  SIGINT: 'an interrupt, as from Ctrl-C',
  SIGHUP: 'the loss of its terminal',
  SIGSEGV: 'a fault in native code: it touched memory that is not its own',
  SIGBUS: 'a fault in native code, or a memory-mapped file that was cut',
  SIGABRT: 'it gave up by itself, often a failed assertion in native code',
  SIGILL: 'an instruction that this processor does not know',
  SIGFPE: 'an arithmetic fault in native code',
  SIGPIPE: 'it wrote to a pipe that nobody reads',
  SIGXCPU: 'its processor time limit (ulimit -t)',
  SIGXFSZ: 'its file size limit (ulimit -f)',
}

const CODE_MEANINGS: Readonly<Record<number, string>> = {
  125: 'often that the program could not be started at all',
  126: 'often that a command was found but may not be executed',
  127: 'often that a command, or the interpreter in the first line of a script, was not found',
  247: 'often that it was ended because memory ran out',
}

/**
 * Reads a shell's `$?`. There 128 + n stands both for signal n and for an exit with that very code: it counts as the
 * signal, and the reason names both readings. The meanings follow Prefect's own table and the shell's conventions.
 */
export function explainExitCode(code: number): Pick<Exited, 'statusCode' | 'signal' | 'reason'> {
  const signal = code > 128 ? SIGNAL_BY_NUMBER.get(code - 128) : undefined
  if (signal === undefined) return { statusCode: code, signal, reason: explainPlainCode(code) }
  const meaning = SIGNAL_MEANINGS[signal]
  const reading = `${signal} ended it${meaning ? ` (${meaning})` : ''}, or it exited with code ${code} by itself`
  return { statusCode: undefined, signal, reason: reading }
}

function explainPlainCode(code: number): string | undefined {
  const meaning = CODE_MEANINGS[code]
  return meaning && `exit code ${code} means ${meaning}`
}
