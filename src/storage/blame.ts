// Whose fault is a system error: this host's, so that the run is given back for later, or the run's own.

import { errorCode } from '../errors.ts'
import { StorageError } from './storage.ts'

/** Disk, descriptors and memory of this machine, and a network that is down as a whole. */
const hostCodes = new Set([
  'ENOSPC',
  'EDQUOT',
  'EROFS',
  'EIO',
  'EMFILE',
  'ENFILE',
  'ENOMEM',
  'ENETDOWN',
  'ENETUNREACH',
  'EHOSTUNREACH',
  'EAI_AGAIN',
])

export function blameOf(error: unknown): 'run' | 'host' {
  if (error instanceof StorageError) return error.blame
  return hostCodes.has(errorCode(error) ?? '') ? 'host' : 'run'
}

/** A StorageError with that sentence, whose blame follows from the cause. */
export function storageError(sentence: string, cause: unknown): StorageError {
  return new StorageError(sentence, { blame: blameOf(cause), cause })
}
