// Turns a folder tree on this machine into a tree of the cache (manifest.ts). Runs in the tree worker, for sources that
// write a tree by themselves: git, archives, helper programs.

import {
  closeSync,
  constants,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import type { FetchLimits } from './context.ts'
import { hashFile } from './file-hash.ts'
import { largeBytes, ManifestBuilder } from './manifest.ts'
import { type TreeSize, walkTree } from './walk-tree.ts'

export interface PackJob {
  /** Absolute path of the folder that was fetched. */
  readonly from: string
  /** Existing, empty folder that becomes the tree of the cache. */
  readonly to: string
  readonly limits: FetchLimits
}

export interface PackedTree extends TreeSize {
  readonly id: string
}

export function packTree(job: PackJob, isCancelled: () => boolean): PackedTree {
  const root = realpathSync(job.from)
  const manifest = new ManifestBuilder()
  const pack = openSync(join(job.to, 'pack'), 'wx', 0o600)
  mkdirSync(join(job.to, 'large'))
  try {
    const options = { root, isIgnored: () => false, limits: job.limits, isCancelled }
    const size = walkTree(options, {
      file(path, source, stat) {
        const mode = stat.mode & 0o777
        if (stat.size <= largeBytes) {
          const bytes = readFileSync(source)
          manifest.addSmall({ path, mode }, bytes)
          writeSync(pack, bytes)
          return
        }
        const number = manifest.nextLarge()
        const copy = join(job.to, 'large', String(number))
        copyFileSync(source, copy, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE)
        manifest.addLarge({ path, mode, ...hashFile(copy), number })
      },
      link: (path, target) => manifest.addLink(path, target),
      enterFolder: (path, _source, stat) => manifest.addFolder(path, stat.mode & 0o777),
      leaveFolder: () => undefined,
    })
    const { text, id } = manifest.finish()
    writeFileSync(join(job.to, 'manifest.json'), text, { flag: 'wx', mode: 0o600 })
    return { ...size, id }
  } finally {
    closeSync(pack)
  }
}
