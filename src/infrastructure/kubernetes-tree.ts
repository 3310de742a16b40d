// Reads fetched flow code for a ConfigMap: files by path, with their executable bit.
//
// In: the workspace on this machine. Out: all of its files, or, where they cannot travel that way (too large, or what a
// ConfigMap cannot carry; links and empty folders matter to nobody), how the pod fetches them by itself.

import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { errorCode } from '../errors.ts'
import { readVersion } from '../version.ts'
import { type CodeRecipe, InfrastructureError, type RunSpec } from './infrastructure.ts'

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

/** The code of a run: its files, or how and by which image the pod fetches them; undefined when there is none. */
export type Code = readonly CodeFile[] | { readonly recipe: CodeRecipe; readonly image: string } | undefined

/** `image`: by default `rigel-agent` of this version. Throws an InfrastructureError when the pod has no way to the code. */
export async function readCode({ workspace, recipe }: RunSpec, image: string | undefined): Promise<Code> {
  if (workspace === undefined) return undefined
  const files = await readTree(workspace)
  if (typeof files !== 'string') return files
  if (recipe) return { recipe, image: image ?? `rigel-agent:${readVersion()}` }
  throw new InfrastructureError(
    `The flow code cannot travel to the cluster: ${files}, and the pod cannot fetch it from this machine's disk. Give it a storage that pods reach, let the image hold it, or let the engine in the pod fetch it (deployment override "fetch": "infrastructure").`,
    { blame: 'run' },
  )
}

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
