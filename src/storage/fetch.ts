// The agent's one door to storage: brings the flow code of a deployment into a folder.

import { isAbsolute } from 'node:path'
import type { StorageContext } from './context.ts'
import { beginsWithFetch, type PulledSteps, pullSteps, type StepScene } from './pull-steps.ts'
import { openStorage, type StorageBlock } from './registry.ts'
import { StorageError } from './storage.ts'

/** What a deployment says about where its code is; wire names, so it can be filled from the API's answer as it is. */
export interface CodeFacts {
  readonly path: string | null
  readonly pull_steps: readonly unknown[] | null
  /** Slug and data (secrets included) of the block that `storage_document_id` names. */
  readonly storage: StorageBlock | undefined
}

export interface FetchedCode {
  /** Undefined: the code did not come by steps. */
  readonly steps: PulledSteps | undefined
}

/**
 * False: the code is where the flow runs already, or only the engine there can get it. `isHere`: the flow runs on this
 * machine, so a path of it means the same to both.
 */
export function hasCodeToFetch({ path, pull_steps, storage }: CodeFacts, isHere: boolean): boolean {
  // Prefect's engine looks at the steps first and then ignores storage block and path.
  if (pull_steps?.some(Boolean)) return beginsWithFetch(pull_steps)
  if (storage) return isHere || storage.slug !== 'local-file-system'
  // Prefect copies the current directory onto itself where there is no other path, which is nothing.
  return isHere && path !== null && path !== '' && path !== '.'
}

/**
 * Fills `to`, an existing, empty, private folder that the caller owns and removes when this rejects; only for what has code
 * to fetch. Undefined: only the engine can get it, as it turned out. Rejects with a StorageError whose `blame` says whether
 * the run is wrong or this host is in trouble, with what a reader of `scene` rejects with, or with the signal's reason.
 */
export async function fetchCode(
  facts: CodeFacts,
  to: string,
  scene: StepScene,
  context: StorageContext,
  signal: AbortSignal,
): Promise<FetchedCode | undefined> {
  if (facts.pull_steps?.some(Boolean)) {
    const steps = await pullSteps(facts.pull_steps, to, scene, context, signal)
    return steps.outputs.length > 0 ? { steps } : undefined
  }
  if (facts.storage) {
    const storage = await openStorage(facts.storage, context)
    await storage.getDirectory(facts.path ?? undefined, to, signal)
  } else await fetchLocalPath(facts.path ?? '', to, context, signal)
  return { steps: undefined }
}

async function fetchLocalPath(path: string, to: string, context: StorageContext, signal: AbortSignal): Promise<void> {
  if (!isAbsolute(path) && !path.startsWith('~')) {
    throw new StorageError(
      `The deployment has no storage block and its path "${path}" is relative: give it an absolute path or a storage block`,
    )
  }
  const { openLocalPath } = await import('./local-file-system.ts')
  await openLocalPath(path, context).getDirectory(undefined, to, signal)
}
