// The agent's one door to storage: brings the flow code of a deployment into a folder.

import { isAbsolute } from 'node:path'
import type { StorageContext } from './context.ts'
import { openStorage, type StorageBlock } from './registry.ts'
import { StorageError } from './storage.ts'

/** What a deployment says about where its code is; wire names, so it can be filled from the API's answer as it is. */
export interface CodeFacts {
  readonly path: string | null
  readonly entrypoint: string | null
  readonly pull_steps: readonly unknown[] | null
  /** Slug and data (secrets included) of the block that `storage_document_id` names. */
  readonly storage: StorageBlock | undefined
}

/**
 * Fills `to`, an existing, empty, private folder that the caller owns and removes when this rejects.
 * `nothing to fetch`: the code is where the flow runs already, or only the engine there can get it.
 * Rejects with a StorageError whose `blame` says whether the run is wrong or this host is in trouble, or with the signal's
 * reason.
 */
export async function fetchCode(
  facts: CodeFacts,
  to: string,
  context: StorageContext,
  signal: AbortSignal,
): Promise<'fetched' | 'nothing to fetch'> {
  // Prefect's engine looks at the steps first and then ignores storage block and path.
  if (facts.pull_steps?.some(Boolean)) return 'nothing to fetch'
  if (facts.storage) {
    const storage = await openStorage(facts.storage, context)
    await storage.getDirectory(facts.path ?? undefined, to, signal)
    return 'fetched'
  }
  return fetchLocalPath(facts.path, to, context, signal)
}

async function fetchLocalPath(path: string | null, to: string, context: StorageContext, signal: AbortSignal) {
  // Prefect copies the current directory onto itself then, which is nothing.
  if (!path || path === '.') return 'nothing to fetch'
  if (!isAbsolute(path) && !path.startsWith('~')) {
    throw new StorageError(
      `The deployment has no storage block and its path "${path}" is relative: give it an absolute path or a storage block`,
    )
  }
  const { openLocalPath } = await import('./local-file-system.ts')
  await openLocalPath(path, context).getDirectory(undefined, to, signal)
  return 'fetched'
}
