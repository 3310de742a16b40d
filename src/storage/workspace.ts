// One private folder per run, filled completely or not there at all.
//
//   <root>/.partial-XXXXXX   being filled, 0700, named at random
//   <root>/<name>            whole: the same folder after a rename

import { chmod, lstat, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { errorCode } from '../errors.ts'
import { storageError } from './blame.ts'

const partialPrefix = '.partial-'

export interface WorkspacePlace {
  /** Folder that holds all workspaces; made (0700) when missing. */
  readonly root: string
  /** One path segment, usually the flow run id. */
  readonly name: string
}

/**
 * Makes `<root>/<name>` with what `fill` writes into the folder that it is given; returns its path.
 * What an earlier try has left under that name is replaced. Rejects with what `fill` rejects with; then nothing is left.
 */
export async function makeWorkspace(
  place: WorkspacePlace,
  fill: (directory: string, signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): Promise<string> {
  const path = join(place.root, place.name)
  const partial = await makePartial(place.root)
  try {
    await fill(partial, signal)
    signal.throwIfAborted()
    await removeTree(path)
    await rename(partial, path)
    return path
  } catch (error) {
    await removeTree(partial)
    throw error
  }
}

async function makePartial(root: string): Promise<string> {
  try {
    await mkdir(root, { recursive: true, mode: 0o700 })
    // mkdtemp gives 0700 whatever the umask is.
    return await mkdtemp(join(root, partialPrefix))
  } catch (error) {
    throw storageError(`Could not make a workspace in "${root}"`, error)
  }
}

/** Removes all workspaces below `root` but those named in `keep`: what runs of an earlier life have left behind. */
export async function sweepWorkspaces(root: string, keep: ReadonlySet<string>): Promise<void> {
  const names = await readdir(root).catch(error => {
    if (errorCode(error) === 'ENOENT') return []
    throw error
  })
  for (const name of names) if (!keep.has(name)) await removeTree(join(root, name))
}

/** Removes everything in the folder, but not itself. */
export async function emptyFolder(path: string): Promise<void> {
  for (const name of await readdir(path)) await removeTree(join(path, name))
}

/** Removes a tree, its read-only folders included. Nothing there is fine. */
export async function removeTree(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true })
  } catch (error) {
    if (errorCode(error) !== 'EACCES' && errorCode(error) !== 'EPERM') throw error
    await openFolders(path)
    await rm(path, { recursive: true, force: true })
  }
}

/** Gives us all rights on every folder of the tree: without them its entries cannot be removed. Links are not followed. */
async function openFolders(path: string): Promise<void> {
  const stat = await lstat(path)
  if (!stat.isDirectory()) return
  await chmod(path, 0o700)
  for (const name of await readdir(path)) await openFolders(join(path, name))
}
