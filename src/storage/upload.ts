// Writes a folder of this machine to a target: all files that are not ignored, many at once, each tried again after a cut.
//
// As put_directory of Prefect 2.20 (filesystems.py), but a tree of which everything is ignored is an error (Prefect uploads all
// of it then), and so is a link that leaves the tree or, where there are no links, leads to a folder (Prefect drops it).

import { createReadStream, realpathSync, statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Scope } from '../async/scope.ts'
import { storageError } from './blame.ts'
import type { FetchLimits, Meter } from './context.ts'
import { type IsIgnored, readIgnoreFile } from './ignore-file.ts'
import { withRetries } from './retry.ts'
import type { Target, Upload } from './source.ts'
import { StorageError } from './storage.ts'
import { walkTree } from './walk-tree.ts'

/** What is not larger is read at once; the memory for it is this times the target's connections. */
const smallBytes = 1024 * 1024

export interface UploadTask {
  readonly target: Target
  /** Local folder. */
  readonly from: string
  readonly ignoreFile: string | undefined
  readonly limits: FetchLimits
  readonly meter: Meter
}

/** Returns the number of files. Rejects with the first failure; what was written until then stays. */
export async function uploadTree(task: UploadTask, signal: AbortSignal): Promise<number> {
  const { target } = task
  const plan = await planUpload(task)
  for (const { path, mode } of plan.folders) await target.makeFolder?.(path, mode)
  task.meter.expected += plan.files.length
  const queue = plan.files.values()
  const scope = new Scope(signal)
  for (let at = 0; at < Math.min(target.connections, plan.files.length); at++) {
    scope.spawn(async signal => {
      // One iterator for all of them: each takes the next file.
      for (const { path, upload } of queue) {
        await withRetries(() => target.write(path, upload, signal), signal)
        task.meter.files += 1
        task.meter.bytes += upload.size
      }
    })
  }
  await scope.join()
  for (const { path, text } of plan.links) await target.makeLink?.(path, text)
  return plan.files.length + plan.links.length
}

interface UploadPlan {
  readonly files: { readonly path: string; readonly upload: Upload }[]
  readonly folders: { readonly path: string; readonly mode: number }[]
  readonly links: { readonly path: string; readonly text: string }[]
}

/** Walks on the event loop: whoever uploads is a command line, not the agent. */
async function planUpload({ target, from, ignoreFile, limits }: UploadTask): Promise<UploadPlan> {
  const plan: UploadPlan = { files: [], folders: [], links: [] }
  const isIgnored = await readRules(ignoreFile)
  const root = realFolder(from)
  walkTree(
    { root, isIgnored, limits, isCancelled: () => false },
    {
      file: (path, source, stat) => plan.files.push({ path, upload: uploadOf(source, stat.size, stat.mode) }),
      link(path, text) {
        if (target.makeLink) plan.links.push({ path, text })
        else plan.files.push({ path, upload: linkedFile(root, path) })
      },
      enterFolder: (path, _source, stat) => plan.folders.push({ path, mode: stat.mode & 0o7777 }),
      leaveFolder: () => undefined,
    },
  )
  if (plan.files.length + plan.links.length === 0) {
    const why = ignoreFile === undefined ? '' : ` that "${ignoreFile}" does not ignore`
    throw new StorageError(`There is no file below "${from}"${why}`)
  }
  return plan
}

async function readRules(ignoreFile: string | undefined): Promise<IsIgnored> {
  if (ignoreFile === undefined) return () => false
  try {
    return readIgnoreFile(await readFile(ignoreFile, 'utf8'))
  } catch (error) {
    throw storageError(`The ignore file "${ignoreFile}" cannot be read`, error)
  }
}

function realFolder(from: string): string {
  try {
    const root = realpathSync(from)
    if (statSync(root).isDirectory()) return root
  } catch (error) {
    throw storageError(`Folder "${from}" cannot be read`, error)
  }
  throw new StorageError(`"${from}" is not a folder`)
}

/** A link inside the tree, for a storage without links. */
function linkedFile(root: string, path: string): Upload {
  const source = join(root, path)
  const stat = statSync(source, { throwIfNoEntry: false })
  if (!stat?.isFile()) {
    const trouble = stat ? 'does not lead to a file' : 'leads nowhere'
    throw new StorageError(`Link "${path}" ${trouble}, and this storage has no links: name it in .prefectignore`)
  }
  return uploadOf(source, stat.size, stat.mode)
}

function uploadOf(file: string, size: number, mode: number): Upload {
  return {
    file,
    size,
    mode: mode & 0o7777,
    async open(part) {
      if (part) return createReadStream(file, { start: part.start, end: part.start + part.size - 1 })
      if (size > smallBytes) return createReadStream(file, { end: size - 1 })
      const bytes = await readFile(file)
      if (bytes.length === size) return bytes
      throw new StorageError(`"${file}" has changed while it was read`)
    },
  }
}
