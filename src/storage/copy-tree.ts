// Copies a folder tree on this machine, modes and times kept. Runs in the tree worker.

import {
  chmodSync,
  constants,
  copyFileSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  statSync,
  symlinkSync,
  utimesSync,
} from 'node:fs'
import { join } from 'node:path'
import type { FetchLimits } from './context.ts'
import { type IsIgnored, ignoreFileName, readIgnoreFile } from './ignore-file.ts'
import { StorageError } from './storage.ts'
import { type TreeSize, walkTree } from './walk-tree.ts'

export interface CopyJob {
  /** Absolute path of the folder whose contents are copied; a `.prefectignore` directly in it counts. */
  readonly from: string
  /** Existing, empty folder of ours. */
  readonly to: string
  readonly limits: FetchLimits
}

/** Throws when something is refused or fails; what was written until then stays for the caller to remove. */
export function copyTree(job: CopyJob, isCancelled: () => boolean): TreeSize {
  const root = realpathSync(job.from)
  const target = realpathSync(job.to)
  const options = { root, isIgnored: ignoreRules(root), limits: job.limits, isCancelled }
  return walkTree(options, {
    file(path, source, stat) {
      copyFileSync(source, join(target, path), constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE)
      // Python trusts a compiled file by its source's time: without it every run would compile anew.
      utimesSync(join(target, path), stat.atime, stat.mtime)
    },
    link: (path, text) => symlinkSync(text, join(target, path)),
    enterFolder(path, source) {
      if (source === target) {
        throw new StorageError(
          `It contains this agent's own work folder "${target}": choose a base path that does not, or name it in ${ignoreFileName}`,
        )
      }
      mkdirSync(join(target, path), { mode: 0o700 })
    },
    leaveFolder(path, stat) {
      chmodSync(join(target, path), stat.mode & 0o7777)
      utimesSync(join(target, path), stat.atime, stat.mtime)
    },
  })
}

function ignoreRules(root: string): IsIgnored {
  const file = join(root, ignoreFileName)
  // Not a pipe, on which reading would wait for ever.
  return statSync(file, { throwIfNoEntry: false })?.isFile() ? readIgnoreFile(readFileSync(file, 'utf8')) : () => false
}
