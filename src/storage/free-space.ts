// Whether a disk of this machine has room, asked where a program that writes by itself does not say well why it stopped.

import { statfs } from 'node:fs/promises'

/** The error that Node gives for a full disk, when the one with that folder has no room for so many bytes more. */
export async function findFullDisk(folder: string, bytes: number): Promise<Error | undefined> {
  const { bavail, bsize, files, ffree } = await statfs(folder)
  // Some file systems count no inodes.
  if (bavail * bsize >= bytes && (files === 0 || ffree > 0)) return undefined
  return Object.assign(new Error(`no space left on the disk of ${folder}`), { code: 'ENOSPC' })
}
