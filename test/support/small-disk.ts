// A file system of a test's own, so small that it fills up. It takes root to mount one.

import { execFileSync } from 'node:child_process'
import { makeDirectory } from './directory.ts'
import { until } from './until.ts'

export interface SmallDisk extends AsyncDisposable {
  readonly path: string
  /** As when somebody has tidied up. */
  makeRoom(): void
}

/** `inodes`: how many files it holds; 0: as many as there is room for. */
export async function mountSmallDisk(sizeKiB: number, inodes = 0): Promise<SmallDisk> {
  const directory = await makeDirectory()
  const mount = (...options: readonly string[]) =>
    execFileSync('mount', ['-t', 'tmpfs', '-o', options.join(), 'tmpfs', directory.path])
  mount(`size=${sizeKiB}k`, 'mode=700', `nr_inodes=${inodes}`)
  return {
    path: directory.path,
    makeRoom: () => mount('remount', 'size=100m', 'nr_inodes=1000'),
    async [Symbol.asyncDispose]() {
      // What has used it may be about to end.
      await until(() => {
        execFileSync('umount', [directory.path], { stdio: 'ignore' })
        return true
      })
      await directory[Symbol.asyncDispose]()
    },
  }
}
