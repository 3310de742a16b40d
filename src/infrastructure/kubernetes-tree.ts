// Reads fetched flow code for a ConfigMap: files by path, with their executable bit.
//
// In: the workspace on this machine. Out: all of its files, or why it cannot travel that way: it is too large, or holds
// what a ConfigMap cannot carry (links, empty folders matter to nobody).

import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { errorCode } from '../errors.ts'
import { InfrastructureError } from './infrastructure.ts'

export interface CodeFile {
  /** Relative, with slashes. */
  readonly path: string
  readonly content: Buffer
  readonly isExecutable: boolean
}

/** etcd takes objects up to 1.5 MiB, the API server ConfigMaps with 1 MiB of data. */
export const longestCodeBytes = 900 * 1024
/** Each file is named in the Job as well, which must stay below the same limit. */
export const mostCodeFiles = 3_000

/** Git's own folder is of no use to a flow, and would be the larger part. */
const leftOut = new Set(['.git'])

/** A sentence when the tree does not fit. Throws an InfrastructureError when it cannot be read. */
export async function readTree(workspace: string): Promise<readonly CodeFile[] | string> {
  try {
    return await walk(workspace)
  } catch (error) {
    if (error instanceof DoesNotFit) return error.message
    if (errorCode(error) === undefined) throw error
    throw new InfrastructureError('Could not read the flow code to send it to the cluster', {
      blame: 'run',
      cause: error,
    })
  }
}

class DoesNotFit extends Error {}

async function walk(workspace: string): Promise<CodeFile[]> {
  const files: CodeFile[] = []
  let bytes = 0
  const visit = async (folder: string): Promise<void> => {
    const entries = await readdir(join(workspace, folder), { withFileTypes: true })
    for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`
      if (entry.isDirectory()) {
        if (!leftOut.has(path)) await visit(path)
        continue
      }
      // A link is followed, for the cluster's own mount is made of links; one that leads out of the tree came with the
      // code and was judged where it was unpacked.
      const facts = await stat(join(workspace, path))
      if (!facts.isFile()) throw new DoesNotFit(`the code holds "${path}", which is neither a file nor a folder`)
      bytes += facts.size + path.length
      if (bytes > longestCodeBytes) throw new DoesNotFit('the code is larger than the 900 KiB that a ConfigMap holds')
      if (files.length >= mostCodeFiles) throw new DoesNotFit(`the code has more than ${mostCodeFiles} files`)
      const isExecutable = (facts.mode & 0o111) !== 0
      files.push({ path, content: await readFile(join(workspace, path)), isExecutable })
    }
  }
  await visit('')
  return files
}
