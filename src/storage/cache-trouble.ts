// Whether a failed fetch is the cache's own trouble: then it is worth going without it, for no run needs a cache.

import { describeError, errorCode } from '../errors.ts'
import { StorageError } from './storage.ts'
import { DamagedTreeError } from './unpack-tree.ts'

/** The cache could not be used; `cause` says why. When there is nothing left to turn to, it is this host's fault. */
export class CacheError extends StorageError {
  constructor(cause: unknown) {
    super('The cache could not be used', { blame: 'host', cause })
    this.name = 'CacheError'
  }
}

/** What files answer when a disk is full, closed to writing or broken, or when somebody has removed the folder. */
const fileCodes = new Set(['EROFS', 'EIO', 'ENOENT', 'ENOTDIR', 'EACCES', 'EPERM', 'ESTALE'])

/** Sources put their own trouble into sentences, so a bare error of a file is one of the cache's. */
export function isCacheTrouble(error: unknown): boolean {
  return error instanceof DamagedTreeError || isDiskFull(error) || fileCodes.has(errorCode(error) ?? '')
}

export function isDiskFull(error: unknown): boolean {
  // Errors of the worker arrive as text.
  return /\b(?:ENOSPC|EDQUOT)\b/.test(describeError(error))
}
