// Giving up a wait without ending what is waited for.

/**
 * What `work` gives, unless the signal is aborted first: then rejects with its reason at once, and `work` goes on for others.
 * A signal given to shared work itself would end it for all who wait for it.
 */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const giveUp = () => reject(signal.reason)
  if (signal.aborted) giveUp()
  signal.addEventListener('abort', giveUp, { once: true })
  try {
    return await Promise.race([work, aborted])
  } finally {
    signal.removeEventListener('abort', giveUp)
  }
}
