// Runs a helper program of this machine: git, smbclient. It ends with its whole process group when the fetch ends, and what
// it says on its error output comes back without secrets.

import process from 'node:process'
import { describeError, errorCode } from '../errors.ts'
import { StorageError } from './storage.ts'

export interface ProgramCall {
  readonly program: string
  /** Seen by every user of this machine: no secrets. */
  readonly arguments: readonly string[]
  /** The whole of it; nothing is added. */
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly directory?: string | undefined
  /** Written to its input, which is then closed. */
  readonly input?: string | undefined
  /** Hears what it says as it comes; when this throws, the program is ended, and that is what it rejects with. */
  readonly hear?: ((chunk: Buffer) => void) | undefined
  /** Taken out of `errors`, as they are and in the encodings that protocols use. */
  readonly secrets?: readonly string[] | undefined
}

export interface ProgramResult {
  /** Undefined when it was ended by a signal. */
  readonly exitCode: number | undefined
  /** It was ended because it said more than is listened to; `output` is the beginning of it. */
  readonly isTooMuch: boolean
  readonly output: Buffer
  /** Its error output, without secrets. */
  readonly errors: string
}

/** Listings come this way; beyond it the program is ended. */
const maxOutputBytes = 256 * 1024 * 1024

/** Rejects with a StorageError when the program is not there, and with the signal's reason. A failure of it is a result. */
export async function runProgram(call: ProgramCall, signal: AbortSignal): Promise<ProgramResult> {
  signal.throwIfAborted()
  const { execa } = await import('execa')
  const child = execa(call.program, call.arguments, {
    env: withoutUndefined(call.environment),
    extendEnv: false,
    ...(call.directory === undefined ? {} : { cwd: call.directory }),
    ...(call.input === undefined ? { stdin: 'ignore' } : { input: call.input }),
    // A group of its own: git's helpers (ssh, git-remote-https) do not end with git.
    detached: true,
    reject: false,
    encoding: 'buffer',
    stripFinalNewline: false,
    maxBuffer: maxOutputBytes,
  })
  const end = () => endGroup(child.pid)
  signal.addEventListener('abort', end)
  let objection: { readonly error: unknown } | undefined
  child.stdout.on('data', (chunk: Buffer) => {
    try {
      if (!objection) call.hear?.(chunk)
    } catch (error) {
      objection = { error }
      end()
    }
  })
  try {
    const result = await child
    signal.throwIfAborted()
    if (objection) throw objection.error
    refuseUnstarted(call, result)
    return {
      exitCode: result.isMaxBuffer ? undefined : result.exitCode,
      isTooMuch: result.isMaxBuffer,
      output: Buffer.from(result.stdout),
      errors: hideSecrets(Buffer.from(result.stderr).toString('utf8'), call.secrets ?? []),
    }
  } finally {
    signal.removeEventListener('abort', end)
    end()
  }
}

/**
 * What a program makes of a file, as it comes. Rejects with a StorageError when the program is not there or fails, and with
 * the signal's reason; it has ended when the reader stops.
 */
export async function* streamProgram(
  call: Pick<ProgramCall, 'program' | 'arguments' | 'environment'> & { readonly inputFile: string },
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  signal.throwIfAborted()
  const { execa } = await import('execa')
  const child = execa(call.program, call.arguments, {
    env: withoutUndefined(call.environment),
    extendEnv: false,
    inputFile: call.inputFile,
    reject: false,
    buffer: { stdout: false, stderr: true },
    maxBuffer: { stderr: 64 * 1024 },
  })
  const end = () => child.kill('SIGKILL')
  signal.addEventListener('abort', end)
  try {
    for await (const chunk of child.stdout) yield chunk
    const result = await child
    signal.throwIfAborted()
    refuseUnstarted(call, result)
    if (result.exitCode !== 0) throw new StorageError(`${call.program} failed (${result.stderr.trim().slice(0, 600)})`)
  } finally {
    signal.removeEventListener('abort', end)
    end()
    await child
  }
}

function refuseUnstarted(
  { program, environment }: Pick<ProgramCall, 'program' | 'environment'>,
  { cause, exitCode, signal }: { readonly cause?: unknown; readonly exitCode?: number; readonly signal?: string },
): void {
  if (errorCode(cause) === 'ENOENT') {
    throw new StorageError(`The program "${program}" is needed for it and not on PATH (${environment.PATH ?? ''})`)
  }
  if (exitCode === undefined && signal === undefined) {
    throw new StorageError(`"${program}" could not be started: ${describeError(cause)}`)
  }
}

function endGroup(pid: number | undefined): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // All of it has ended.
  }
}

function withoutUndefined(environment: ProgramCall['environment']): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  )
}

export function hideSecrets(text: string, secrets: readonly string[]): string {
  let shown = text
  for (const secret of secrets) {
    if (secret === '') continue
    const bytes = Buffer.from(secret)
    const forms = [secret, encodeURIComponent(secret), bytes.toString('base64').replace(/=+$/, '')]
    for (const form of forms) shown = shown.replaceAll(form, '***')
  }
  return shown
}
