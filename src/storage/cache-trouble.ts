// Whether a failed fetch is the cache's own trouble: then it is worth going without it, for no run needs a cache.

import { describeError, errorCode, isDiskFull } from '../errors.ts'
import { StorageError } from './storage.ts'
import { DamagedTreeError } from './unpack-tree.ts'

/** The cache could not be used; `cause` says why. When there is nothing left to turn to, it is this host's fault. */
export class CacheError extends StorageError {
  constructor(cause: unknown) {
    super('The cache could not be used', { blame: 'host', cause })
    this.name = 'CacheError'
  }
}

/** What files answer when a folder has been removed or closed to us. */
const folderCodes: readonly string[] = ['ENOENT', 'ENOTDIR', 'EACCES', 'EPERM']
/** ... and a disk that is closed to writing or broken. */
const fileCodes = new Set([...folderCodes, 'EROFS', 'EIO', 'ESTALE'])

/** `askSource` puts the trouble of sources into sentences, so a bare error of a file is one of the cache's. */
export function isCacheTrouble(error: unknown): boolean {
  return error instanceof DamagedTreeError || isDiskFull(error) || fileCodes.has(errorCode(error) ?? '')
}

/**
 * What a source does. A file of its own that is missing or closed (a certificate, a token, an archive on this machine) is its
 * own trouble and told as such. `isOurs`: it was busy in the cache, and it is that which is missing.
 */
export async function askSource<T>(ask: () => Promise<T>, isOurs?: () => boolean): Promise<T> {
  try {
    return await ask()
  } catch (error) {
    if (!folderCodes.includes(errorCode(error) ?? '') || isOurs?.()) throw error
    throw new StorageError(describeError(error), { cause: error })
  }
}
