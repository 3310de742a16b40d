// Turns a folder tree on this machine into a tree of the cache (manifest.ts). Runs in the tree worker, for sources that
// write a tree by themselves: git, archives, helper programs.

import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { errorCode } from '../errors.ts'
import type { FetchLimits } from './context.ts'
import { hashFile } from './file-hash.ts'
import { largeBytes, ManifestBuilder } from './manifest.ts'
import { type TreeSize, walkTree } from './walk-tree.ts'

export interface PackJob {
  /** Absolute path of the folder that was fetched; it is used up. */
  readonly from: string
  /** Existing, empty folder on the same file system that becomes the tree of the cache. */
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
        const large = join(job.to, 'large', String(number))
        renameSync(source, large)
        manifest.addLarge({ path, mode, ...hashFile(large), number })
      },
      link: (path, target) => manifest.addLink(path, target),
      enterFolder: (path, _source, stat) => manifest.addFolder(path, stat.mode & 0o777),
      leaveFolder: () => undefined,
    })
    const { text, id } = manifest.finish()
    writeFileSync(join(job.to, 'manifest.json'), text, { flag: 'wx', mode: 0o600 })
    discard(root)
    return { ...size, id }
  } finally {
    closeSync(pack)
  }
}

/** Here, where it costs a third of what it costs on the event loop. What is closed to us is left to the claim, which opens it. */
function discard(root: string): void {
  try {
    rmSync(root, { recursive: true })
  } catch (error) {
    if (errorCode(error) !== 'EACCES' && errorCode(error) !== 'EPERM') throw error
  }
}
