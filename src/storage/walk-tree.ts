// Walks a folder tree on this machine: links are judged and never followed, everything strange is refused by name, limits are
// kept. Synchronous, for it runs in the tree worker and never on the agent's event loop.

import { isUtf8 } from 'node:buffer'
import { lstatSync, readdirSync, readlinkSync, realpathSync, type Stats } from 'node:fs'
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path'
import type { FetchLimits } from './context.ts'
import { type IsIgnored, ignoreFileName } from './ignore-file.ts'
import { StorageError } from './storage.ts'

export interface TreeSize {
  readonly files: number
  readonly bytes: number
}

export interface WalkOptions {
  /** Real, absolute path of the folder. */
  readonly root: string
  readonly isIgnored: IsIgnored
  readonly limits: FetchLimits
  /** Asked before each entry. */
  readonly isCancelled: () => boolean
}

/** `path` is below the root, with `/`; `source` the whole path. A folder comes before what is in it, and once more after. */
export interface TreeVisitor {
  file(path: string, source: string, stat: Stats): void
  link(path: string, target: string): void
  enterFolder(path: string, source: string, stat: Stats): void
  leaveFolder(path: string, stat: Stats): void
}

/** Throws a StorageError for what is refused, and whatever the visitor throws. */
export function walkTree(options: WalkOptions, visitor: TreeVisitor): TreeSize {
  const { root, isIgnored, limits, isCancelled } = options
  const size = { files: 0, bytes: 0 }

  const walkFolder = (folder: string): void => {
    for (const name of readdirSync(join(root, folder))) {
      const path = folder === '' ? name : `${folder}/${name}`
      if (isIgnored(path)) continue
      if (isCancelled()) throw new StorageError(`Reading "${root}" was stopped`)
      walkEntry(path)
    }
  }

  const walkEntry = (path: string): void => {
    const source = join(root, path)
    if (path.includes('\ufffd')) refuseOtherBytes(root, path)
    const stat = lstatSync(source)
    size.files += 1
    if (stat.isFile()) size.bytes += stat.size
    keepLimits(size, limits)
    if (stat.isSymbolicLink()) {
      visitor.link(path, insideTarget(root, path))
    } else if (stat.isDirectory()) {
      visitor.enterFolder(path, source, stat)
      walkFolder(path)
      visitor.leaveFolder(path, stat)
    } else if (stat.isFile()) {
      visitor.file(path, source, stat)
    } else {
      throw new StorageError(`"${path}" is neither a file, a folder nor a link: name it in ${ignoreFileName}`)
    }
  }

  walkFolder('')
  return size
}

function keepLimits({ files, bytes }: TreeSize, { maxFiles, maxBytes }: FetchLimits): void {
  if (files > maxFiles) throw new StorageError(`It holds more than the limit of ${maxFiles} files`)
  if (bytes > maxBytes) throw new StorageError(`It holds more than the limit of ${maxBytes} bytes`)
}

/** What stands for bytes that are not UTF-8 may be in a name by itself; else the path is one of nothing, or of something else. */
function refuseOtherBytes(root: string, path: string): void {
  const name = basename(path)
  const others = readdirSync(join(root, dirname(path)), 'buffer').filter(bytes => !isUtf8(bytes))
  if (others.some(bytes => bytes.toString('utf8') === name))
    throw new StorageError(`The name "${path}" has bytes in it that are not UTF-8`)
}

/** The text of the link in a copy: as it is, or made relative when it is absolute. Throws when it leaves the tree. */
function insideTarget(root: string, path: string): string {
  const link = join(root, path)
  const bytes = readlinkSync(link, 'buffer')
  const text = bytes.toString('utf8')
  if (!isUtf8(bytes)) throw new StorageError(`Link "${path}" points to "${text}", which is not UTF-8`)
  const end = resolveExisting(resolve(dirname(link), text))
  if (end !== root && !end.startsWith(root + sep)) {
    throw new StorageError(`Link "${path}" points to "${text}", outside of the tree: it is not followed`)
  }
  return isAbsolute(text) ? relative(realpathSync(dirname(link)), end) || '.' : text
}

/** Follows all links of a path as far as it exists; the rest, if it does not, is taken as it stands. */
function resolveExisting(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    const parent = dirname(path)
    return parent === path ? path : resolve(resolveExisting(parent), path.slice(parent.length).replace(/^\//, ''))
  }
}
