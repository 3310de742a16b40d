// What the storage tests share: a context, trees written from a table and read back into one.

import { chmod, lstat, mkdir, readdir, readFile, readlink, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { defaultLimits, type StorageContext } from '../../src/storage/context.ts'
import { openStorage, type StorageBlock } from '../../src/storage/registry.ts'
import { makeDirectory } from '../support/directory.ts'

export function makeContext(changes: Partial<StorageContext> = {}): StorageContext {
  return {
    environment: {},
    proxies: {},
    home: '/nonexistent',
    limits: defaultLimits,
    cacheDir: undefined,
    logger: undefined,
    ...changes,
  }
}

/** What arrives in a new folder, without a cache. */
export async function fetchBlock(
  block: StorageBlock,
  changes: Partial<StorageContext> = {},
): Promise<Record<string, TreeEntry>> {
  await using directory = await makeDirectory()
  const to = join(directory.path, 'to')
  await mkdir(to)
  const storage = await openStorage(block, makeContext(changes))
  await storage.getDirectory(undefined, to, new AbortController().signal)
  return await readTree(to)
}

/** Text of a file; `{ link }`, `{ mode, text }`; null for an empty folder. */
export type TreeEntry = string | null | { readonly link: string } | { readonly mode: number; readonly text: string }
export type Tree = Readonly<Record<string, TreeEntry>>

export async function writeTree(root: string, tree: Tree): Promise<void> {
  for (const [path, entry] of Object.entries(tree)) {
    const at = join(root, path)
    await mkdir(entry === null ? at : dirname(at), { recursive: true })
    if (entry === null) continue
    if (typeof entry === 'string') await writeFile(at, entry)
    else if ('link' in entry) await symlink(entry.link, at)
    else {
      await writeFile(at, entry.text)
      await chmod(at, entry.mode)
    }
  }
}

/** The tree as a table; files that only their owner may run or read show their mode, plain ones (0644) just their text. */
export async function readTree(root: string, below = ''): Promise<Record<string, TreeEntry>> {
  const tree: Record<string, TreeEntry> = {}
  const names = (await readdir(join(root, below))).toSorted()
  for (const name of names) {
    const path = below === '' ? name : `${below}/${name}`
    const stat = await lstat(join(root, path))
    if (stat.isSymbolicLink()) tree[path] = { link: await readlink(join(root, path)) }
    else if (stat.isDirectory()) {
      const inner = await readTree(root, path)
      if (Object.keys(inner).length === 0) tree[path] = null
      Object.assign(tree, inner)
    } else {
      const text = await readFile(join(root, path), 'utf8')
      const mode = stat.mode & 0o7777
      tree[path] = mode === 0o644 ? text : { mode, text }
    }
  }
  return tree
}
