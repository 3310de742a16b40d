// The way back to a storage: put_directory, read_path and write_path of Prefect's blocks, for every target a driver opens.

import { posix } from 'node:path'
import { openFenced, storageError } from './blame.ts'
import { makeMeter, type StorageContext } from './context.ts'
import { fetchSource } from './fetch-source.ts'
import { joinBelow } from './paths.ts'
import { withRetries } from './retry.ts'
import type { Remote, Target, Upload } from './source.ts'
import { StorageError, type WritableStorage } from './storage.ts'
import { withTimeLimit } from './time-limit.ts'
import { uploadTree } from './upload.ts'

/** What a write gives a file whose mode nobody says. */
const plainMode = 0o644

export type OpenTarget = (to: string | undefined) => Target

export function writableStorageOf(remote: Remote, openTarget: OpenTarget, context: StorageContext): WritableStorage {
  return {
    getDirectory: (from, to, signal) => fetchSource(() => remote.folder(from), to, context, signal),
    ...writesOf(openTarget, context),
  }
}

/** For a storage that is no Remote (a local folder). */
export function writesOf(openTarget: OpenTarget, context: StorageContext): Omit<WritableStorage, 'getDirectory'> {
  return {
    putDirectory: (from, to, ignoreFile, signal) =>
      withTarget(
        () => openTarget(to),
        `Could not upload "${from}" to`,
        context,
        signal,
        (target, signal) =>
          uploadTree({ target, from, ignoreFile, limits: context.limits, meter: context.meter ?? makeMeter() }, signal),
      ),
    readPath: (path, signal) => {
      const { folder, name } = splitPath(path)
      return withTarget(
        () => openTarget(folder),
        `Could not read "${name}" in`,
        context,
        signal,
        (target, signal) => withRetries(() => readWhole(target, name, context, signal), signal),
      )
    },
    writePath: (path, content, signal) => {
      const { folder, name } = splitPath(path)
      const upload: Upload = {
        size: content.length,
        mode: plainMode,
        file: undefined,
        open: part => Promise.resolve(part ? content.subarray(part.start, part.start + part.size) : content),
      }
      return withTarget(
        () => openTarget(folder),
        `Could not write "${name}" to`,
        context,
        signal,
        (target, signal) => withRetries(() => target.write(name, upload, signal), signal),
      )
    },
  }
}

/** The folder as it was said (it may be a URL), and the file's own name. Throws a StorageError when it names no file. */
function splitPath(path: string): { readonly folder: string; readonly name: string } {
  const name = posix.basename(path)
  if (path.endsWith('/') || name === '' || joinBelow('', name) === '') {
    throw new StorageError(`Path ${JSON.stringify(path)} names no file`)
  }
  const folder = posix.dirname(path)
  return { folder: folder === '.' ? '' : folder, name }
}

async function readWhole(
  target: Target,
  name: string,
  { limits }: StorageContext,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const { stream } = await target.read(name, 0, signal)
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of stream) {
    size += chunk.length
    if (size > limits.maxBytes) throw new StorageError(`It holds more than the limit of ${limits.maxBytes} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

async function withTarget<T>(
  open: () => Target,
  attempt: string,
  { limits }: StorageContext,
  signal: AbortSignal,
  work: (target: Target, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const target = openFenced(open)
  try {
    return await withTimeLimit(limits, signal, signal => work(target, signal))
  } catch (error) {
    signal.throwIfAborted()
    throw storageError(`${attempt} ${target.place} (${target.credentials})`, error)
  } finally {
    await target.close()
  }
}
