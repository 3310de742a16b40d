// Paths on the other side, as pure text.

import { StorageError } from './storage.ts'

/**
 * Joins a base path and the path of a deployment, both literal; no leading and no trailing slash in the result, '' is the
 * top. `.` and doubled slashes vanish; `..` may turn inside the base but not leave it: then a StorageError.
 */
export function joinBelow(base: string, from: string | undefined): string {
  const inside = normalise(from ?? '')
  if (inside === undefined) throw new StorageError(`Path "${from}" leads out of the base path "${base}"`)
  const top = normalise(base)
  if (top === undefined) throw new StorageError(`Base path "${base}" leads out of its own root`)
  return [top, inside].filter(part => part !== '').join('/')
}

function normalise(path: string): string | undefined {
  const parts: string[] = []
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue
    if (part !== '..') parts.push(part)
    else if (parts.pop() === undefined) return undefined
  }
  return parts.join('/')
}
