// Runs a program to its end and gives what it said; a failure is an answer, not an exception.

import { execFile } from 'node:child_process'

export interface RunOptions {
  readonly cwd?: string
  /** The whole environment; default the test's own. */
  readonly env?: NodeJS.ProcessEnv
  /** Default two minutes; the program is killed then. */
  readonly timeoutMs?: number
}

export interface RunResult {
  /** The exit code, or the signal's name. */
  readonly code: number | string
  readonly stdout: string
  readonly stderr: string
}

export function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { timeoutMs = 120_000, ...rest } = options
  return new Promise(resolve => {
    execFile(program, args, { ...rest, timeout: timeoutMs, maxBuffer: 2 ** 24 }, (error, stdout, stderr) => {
      const code = error ? (error.code ?? error.signal ?? 'unknown') : 0
      resolve({ code, stdout, stderr: error && typeof error.code === 'string' ? `${stderr}${error.message}` : stderr })
    })
  })
}
