// For sources that write more than was asked for: leaves one folder of a tree, in the tree's place or where it lay.

import { mkdir, mkdtemp, readdir, realpath, rename } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { StorageError } from './storage.ts'
import { removeTree } from './workspace.ts'

/** Throws a StorageError when the folder is not there. */
export async function liftFolder(tree: string, folder: string, keepsFolder: boolean): Promise<void> {
  // A link of the tree on the way to it could lead to somebody else's folder.
  const real = await realpath(join(tree, folder)).catch(() => undefined)
  if (real !== join(await realpath(tree), folder)) throw new StorageError('There is nothing below it')
  const aside = await mkdtemp(join(tree, '.folder-'))
  const inner = join(aside, 'inner')
  await rename(real, inner)
  for (const name of await readdir(tree)) if (name !== basename(aside)) await removeTree(join(tree, name))
  if (keepsFolder) {
    await mkdir(dirname(join(tree, folder)), { recursive: true })
    await rename(inner, join(tree, folder))
  } else {
    for (const name of await readdir(inner)) await rename(join(inner, name), join(tree, name))
  }
  await removeTree(aside)
}
