// When an archive is taken for a bomb.

import { StorageError } from './storage.ts'

/** Text packs twenty times smaller, logs fifty; what packs a hundred times and is large was made to be. */
const highestRatio = 100
const harmlessBytes = 256 * 1024 * 1024

/** Throws when `bytes`, unpacked, are out of proportion to what they came in. */
export function keepRatio(bytes: number, archiveSize: number): void {
  if (bytes <= harmlessBytes || bytes <= archiveSize * highestRatio) return
  throw new StorageError(
    `It is an archive bomb: ${archiveSize} bytes would unpack to more than ${highestRatio} times as many`,
  )
}
