// Whose fault is a system error: this host's, so that the run is given back for later, or the run's own.

import { describeError, errorCode, isHostCode } from '../errors.ts'
import { StorageError } from './storage.ts'

/** A network that is down as a whole. */
const networkCodes = new Set(['ENETDOWN', 'ENETUNREACH', 'EHOSTUNREACH', 'EAI_AGAIN'])

/** Looks through the causes as well. */
export function blameOf(error: unknown): 'run' | 'host' {
  for (let at = error; at instanceof Error; at = at.cause) {
    if (at instanceof StorageError) return at.blame
    const code = errorCode(at)
    if (isHostCode(code) || networkCodes.has(code ?? '')) return 'host'
  }
  return 'run'
}

/**
 * For what a driver throws while it is opened: it reads no more than its block then, so what is not a StorageError comes from a
 * parser. As a bug it would leave the run where it is; and what it holds may be an address with its password.
 */
export function openingError(error: unknown): StorageError {
  if (error instanceof StorageError) return error
  return new StorageError(
    `The storage block is not understood: ${error instanceof Error ? error.message : 'it is unsound'}`,
  )
}

/** Does `open`; whatever it throws is a StorageError. */
export function openFenced<T>(open: () => T): T {
  try {
    return open()
  } catch (error) {
    throw openingError(error)
  }
}

/** A StorageError with that sentence and those of the cause, whose blame follows from the cause. */
export function storageError(sentence: string, cause: unknown): StorageError {
  return new StorageError(`${sentence}: ${describeError(cause)}`, { blame: blameOf(cause), cause })
}
