// Brings an archive to this machine: one large file, read on from where its connection was cut.

import { open } from 'node:fs/promises'
import type { FetchLimits } from './context.ts'
import { withResumes } from './retry.ts'
import { ChangedError, type Content } from './source.ts'
import { StorageError } from './storage.ts'

/** A small archive is larger than what is in it. */
const archiveBytes = 1024 * 1024

export interface ArchiveDownload {
  /** Opens the archive from an offset on. */
  readonly read: (offset: number) => Promise<Content>
  /** The validator that it must have; undefined: nobody says in which state it is. */
  readonly revision: string | undefined
  /** A file that is not there yet. */
  readonly to: string
  readonly limits: FetchLimits
}

/** Rejects with a ChangedError when it is not the archive of that revision any more. */
export async function downloadArchive(
  { read, revision, to, limits }: ArchiveDownload,
  signal: AbortSignal,
): Promise<void> {
  // Written at its end, wherever that is after it was begun anew.
  await using file = await open(to, 'ax', 0o600)
  let size = 0
  let furthest = 0
  const bringRest = async () => {
    // Without a validator the rest could be of another archive.
    const content = await read(revision === undefined ? 0 : size)
    if (revision !== undefined && content.validator !== revision) throw new ChangedError('The archive has changed')
    if (content.offset !== size) await file.truncate(0)
    size = content.offset
    for await (const chunk of content.stream) {
      size += chunk.length
      furthest = Math.max(furthest, size)
      keepArchiveLimit(size, limits)
      await file.appendFile(chunk)
    }
  }
  await withResumes(bringRest, () => furthest, signal)
}

export function keepArchiveLimit(bytes: number, { maxBytes }: FetchLimits): void {
  if (bytes > maxBytes + archiveBytes) throw new StorageError(`It holds more than the limit of ${maxBytes} bytes`)
}
