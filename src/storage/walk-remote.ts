// Lists a tree of folders on a server that lists one folder at a time: many at once.

import type { Entry } from './source.ts'
import { StorageError } from './storage.ts'

/** Gives what lies directly in the folder `path` ('' is the top); the paths of entries are from the top. */
export type ReadFolder = (path: string, signal: AbortSignal) => Promise<readonly Entry[]>

/** Yields one page for each folder, as they arrive. Rejects with the first failure; then nothing is under way any more. */
export async function* walkFolders(
  readFolder: ReadFolder,
  connections: number,
  signal: AbortSignal,
): AsyncGenerator<readonly Entry[]> {
  const controller = new AbortController()
  const both = AbortSignal.any([signal, controller.signal])
  const waiting = ['']
  const known = new Set<string>()
  const running = new Map<string, Promise<{ path: string; entries: readonly Entry[] }>>()
  try {
    while (waiting.length > 0 || running.size > 0) {
      while (waiting.length > 0 && running.size < connections) {
        const path = waiting.pop() ?? ''
        running.set(
          path,
          readFolder(path, both).then(entries => ({ path, entries })),
        )
      }
      const { path, entries } = await Promise.race(running.values())
      running.delete(path)
      yield entries
      for (const entry of entries) {
        if (entry.kind !== 'folder') continue
        // Two names that have become one on the way: what is in the other nobody would see.
        if (known.has(entry.path)) throw new StorageError(`The folder "${entry.path}" is there twice`)
        known.add(entry.path)
        waiting.push(entry.path)
      }
    }
  } finally {
    controller.abort()
    await Promise.allSettled(running.values())
  }
}
