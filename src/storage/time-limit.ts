// The limit on time that every fetch has, so that a server that trickles cannot hold a slot for ever.

import type { FetchLimits } from './context.ts'
import { StorageError } from './storage.ts'

/** Rejects with a StorageError when the limit is over, with the signal's reason when it is aborted. */
export async function withTimeLimit<T>(
  { maxSeconds }: FetchLimits,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const timeout = AbortSignal.timeout(maxSeconds * 1000)
  try {
    return await work(AbortSignal.any([signal, timeout]))
  } catch (error) {
    signal.throwIfAborted()
    if (!timeout.aborted) throw error
    throw new StorageError(`It took longer than the limit of ${maxSeconds} seconds`, { cause: error })
  }
}
