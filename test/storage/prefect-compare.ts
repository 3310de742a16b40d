// Fetches the same block once with ours and once with Prefect 2.20.25's own code, and compares the trees.

import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { lstat, mkdir, readdir, readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { openStorage } from '../../src/storage/registry.ts'
import { makeDirectory } from '../support/directory.ts'
import type { ContractPlace } from './contract.ts'
import { differences } from './differences.ts'
import type { PrefectBlocks } from './prefect-blocks.ts'
import { makeContext } from './support.ts'

/** How many differences were ignored. */
export async function compare(
  prefect: PrefectBlocks,
  place: Pick<ContractPlace, 'block' | 'environment'>,
  { block, from }: { readonly block: string; readonly from: string | undefined },
): Promise<number> {
  await using directory = await makeDirectory()
  const { slug, data } = place.block()
  const environment = place.environment ?? {}
  const [ours, theirs] = [join(directory.path, 'ours'), join(directory.path, 'theirs')]
  await mkdir(ours)
  const storage = await openStorage({ slug, data }, makeContext({ environment }))
  await storage.getDirectory(from, ours, new AbortController().signal)
  await prefect.fetch({ slug, data, from, to: theirs, environment })

  const [found, expected] = [await describeTree(ours), await describeTree(theirs)]
  const known = Object.keys(differences[from === undefined ? block : `${block} ${from}`] ?? {})
  if (known.includes('*')) {
    assert.notDeepEqual(found, expected, 'listed as different, but the trees are the same')
    return known.length
  }
  for (const path of known) {
    assert.notEqual(found.get(path), expected.get(path), `"${path}" is listed as different, but is the same`)
    found.delete(path)
    expected.delete(path)
  }
  assert.deepEqual(found, expected)
  return known.length
}

/** Kind, mode and content of everything in the tree, by path. */
async function describeTree(root: string): Promise<Map<string, string>> {
  const described = new Map<string, string>()
  for (const path of (await readdir(root, { recursive: true })).toSorted()) {
    const stat = await lstat(join(root, path))
    const mode = (stat.mode & 0o7777).toString(8)
    if (stat.isSymbolicLink()) described.set(path, `link to ${await readlink(join(root, path))}`)
    else if (stat.isDirectory()) described.set(path, `folder ${mode}`)
    else described.set(path, `file ${mode} ${hash('sha256', await readFile(join(root, path)))}`)
  }
  return described
}
