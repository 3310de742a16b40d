// Copies a folder tree on this machine: modes and times kept, links kept when they stay inside, everything else refused by
// name. Synchronous, for it runs in the tree worker and never on the agent's event loop.

import {
  chmodSync,
  constants,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  symlinkSync,
  utimesSync,
} from 'node:fs'
import { dirname, isAbsolute, join, relative, resolve, sep } from 'node:path'
import { blameOf } from './blame.ts'
import type { FetchLimits } from './context.ts'
import { type IsIgnored, ignoreFileName, readIgnoreFile } from './ignore-file.ts'
import { StorageError } from './storage.ts'

export interface CopyJob {
  /** Absolute path of the folder whose contents are copied. */
  readonly from: string
  /** Existing, empty folder of ours. */
  readonly to: string
  readonly limits: FetchLimits
  /** Honour a `.prefectignore` that lies directly in `from`. */
  readonly honourIgnoreFile: boolean
}

export interface TreeSize {
  readonly files: number
  readonly bytes: number
}

/** `isCancelled` is asked before each entry. Throws a StorageError; what was written until then stays for the caller to remove. */
export function copyTree(job: CopyJob, isCancelled: () => boolean): TreeSize {
  const root = realpathSync(job.from)
  const target = realpathSync(job.to)
  const isIgnored = job.honourIgnoreFile ? ignoreRules(root) : () => false
  const size = { files: 0, bytes: 0 }

  const copyFolder = (folder: string): void => {
    for (const { name } of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = folder === '' ? name : `${folder}/${name}`
      if (isIgnored(path)) continue
      if (isCancelled()) throw new StorageError(`Copying "${root}" was stopped`)
      copyEntry(path)
    }
  }

  const copyEntry = (path: string): void => {
    const source = join(root, path)
    const destination = join(target, path)
    if (source === target) {
      throw new StorageError(
        `Folder "${root}" contains this agent's own work folder "${target}": choose a base path that does not, or leave it out in ${ignoreFileName}`,
      )
    }
    const stat = lstatSync(source)
    size.files += 1
    if (stat.isFile()) size.bytes += stat.size
    keepLimits(root, size, job.limits)
    if (stat.isSymbolicLink()) {
      symlinkSync(insideTarget(root, path), destination)
    } else if (stat.isDirectory()) {
      mkdirSync(destination, { mode: 0o700 })
      copyFolder(path)
      chmodSync(destination, stat.mode & 0o7777)
      utimesSync(destination, stat.atime, stat.mtime)
    } else if (stat.isFile()) {
      copyFileSync(source, destination, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE)
      // Python trusts a compiled file by its source's time: without it every run would compile anew.
      utimesSync(destination, stat.atime, stat.mtime)
    } else {
      throw new StorageError(
        `"${path}" in "${root}" is neither a file, a folder nor a link: name it in ${ignoreFileName}`,
      )
    }
  }

  try {
    copyFolder('')
  } catch (error) {
    if (error instanceof StorageError) throw error
    throw new StorageError(`Could not copy "${root}"`, { blame: blameOf(error), cause: error })
  }
  return size
}

function ignoreRules(root: string): IsIgnored {
  const file = join(root, ignoreFileName)
  return existsSync(file) ? readIgnoreFile(readFileSync(file, 'utf8')) : () => false
}

function keepLimits(root: string, { files, bytes }: TreeSize, { maxFiles, maxBytes }: FetchLimits): void {
  if (files > maxFiles) throw new StorageError(`"${root}" holds more than the limit of ${maxFiles} files`)
  if (bytes > maxBytes) throw new StorageError(`"${root}" holds more than the limit of ${maxBytes} bytes`)
}

/** The text of the link in the copy: as it is, or made relative when it is absolute. Throws when it leaves the tree. */
function insideTarget(root: string, path: string): string {
  const link = join(root, path)
  const text = readlinkSync(link)
  const end = resolveExisting(resolve(dirname(link), text))
  if (end !== root && !end.startsWith(root + sep)) {
    throw new StorageError(`Link "${path}" in "${root}" points to "${text}", outside of the tree: it is not followed`)
  }
  return isAbsolute(text) ? relative(realpathSync(dirname(link)), end) || '.' : text
}

/** Follows all links of a path as far as it exists; the rest, if it does not, is taken as it stands. */
function resolveExisting(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    const parent = dirname(path)
    return parent === path ? path : join(resolveExisting(parent), path.slice(parent.length))
  }
}
