// What every room needs to know of errors: how to put one into a sentence for people.

import { inspect } from 'node:util'

/** An error whose message alone is meant for the person at the terminal: no stack is shown for it without `--debug`. */
export class UserError extends Error {
  /** What to do about it, one sentence. */
  readonly hint: string | undefined
  /** The process exit code that it stands for; see docs/service.md. */
  readonly exitCode: number

  constructor(message: string, options: { hint?: string; exitCode?: number; cause?: unknown } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.name = 'UserError'
    this.hint = options.hint
    this.exitCode = options.exitCode ?? 1
  }
}

/** The sentence of an unknown thrown value, with the sentences of its causes, each once. */
export function describeError(error: unknown): string {
  const sentences: string[] = []
  for (let at = error; at !== undefined && at !== null && sentences.length < 5; ) {
    const text = at instanceof Error ? at.message || at.name : typeof at === 'string' ? at : inspect(at, { depth: 1 })
    if (!sentences.some(known => known.includes(text))) sentences.push(text)
    at = at instanceof Error ? at.cause : undefined
  }
  return sentences.join(': ')
}

/** The `code` that Node puts on system errors (`ENOENT`, `ENOSPC` …), or undefined. */
export function errorCode(error: unknown): string | undefined {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code
  return undefined
}

const fullCodes: readonly string[] = ['ENOSPC', 'EDQUOT']

/** Disk, descriptors, memory and processes of this machine: they pass, or an operator must act, and no run is to blame. */
const hostCodes = new Set([...fullCodes, 'EROFS', 'EIO', 'EMFILE', 'ENFILE', 'ENOMEM', 'EAGAIN'])

/** True when it, or one of its causes, is trouble of this machine. */
export function isHostError(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) if (isHostCode(errorCode(at))) return true
  return false
}

export function isHostCode(code: string | undefined): boolean {
  return hostCodes.has(code ?? '')
}

/** The disk, or this user's or folder's share of it, is used up. By codes alone, the causes' too: words may be a server's. */
export function isDiskFull(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) if (fullCodes.includes(errorCode(at) ?? '')) return true
  return false
}
