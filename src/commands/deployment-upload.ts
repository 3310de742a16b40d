// Brings the code of the current directory to a storage block, as a deployment is built or applied.

import { Scope } from '../async/scope.ts'
import { UserError } from '../errors.ts'
import type { BlockDocument } from '../prefect/types.ts'
import { makeMeter } from '../storage/context.ts'
import { openWritableStorage } from '../storage/registry.ts'
import { ReadOnlyError, StorageError } from '../storage/storage.ts'
import { type Context, createCommandLogger } from './context.ts'
import { storageBlockOf } from './fetch.ts'
import { showProgress } from './fetch-progress.ts'
import { ensureIgnoreFile } from './prefect-ignore.ts'
import { buildStorageContext } from './storage-context.ts'

export interface Uploaded {
  readonly files: number
  readonly bytes: number
  /** A `.prefectignore` that was not there before. */
  readonly ignoreFile: string | undefined
}

/**
 * `path` is the one in the storage. Undefined: the block can only be read, so its owner brings the code there.
 * Throws a UserError when the storage refuses.
 */
export async function uploadCode(
  context: Context,
  block: BlockDocument,
  path: string,
  cwd: string,
): Promise<Uploaded | undefined> {
  const meter = makeMeter()
  const storage = { ...buildStorageContext(context.config, createCommandLogger(context)), meter }
  const { slug, data } = storageBlockOf(block)
  await using progress = new Scope(context.signals.stopping)
  try {
    const target = await openWritableStorage({ slug, data }, storage)
    const { file, isNew } = await ensureIgnoreFile(cwd)
    progress.spawn(signal => showProgress(context.stderr, meter, signal))
    const files = await target.putDirectory(cwd, path, file, context.signals.stopping)
    return { files, bytes: meter.bytes, ignoreFile: isNew ? file : undefined }
  } catch (cause) {
    if (cause instanceof ReadOnlyError) {
      context.stderr.write(`warning: ${cause.message}, so nothing was uploaded.\n`)
      return undefined
    }
    if (!(cause instanceof StorageError)) throw cause
    throw new UserError(cause.message, { cause })
  }
}
