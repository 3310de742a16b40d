// Unpacks a zip file that may be hostile: everything in its directory is judged before the first byte is written.

import { createWriteStream } from 'node:fs'
import { mkdir, symlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import type { Entry as ZipEntry, ZipFile } from 'yauzl'
import { keepRatio } from './archive-limits.ts'
import type { FetchLimits, StorageContext } from './context.ts'
import type { Entry } from './source.ts'
import { StorageError } from './storage.ts'
import { TreeNames } from './tree-names.ts'

const linkBits = 0o120000
const typeBits = 0o170000
const longestLink = 4096

export interface UnpackTask {
  readonly archive: string
  /** In bytes. */
  readonly archiveSize: number
  /** Existing folder; may hold other things under names that nothing else has. */
  readonly to: string
  readonly limits: FetchLimits
  /** For the programs that unpack what Node cannot. */
  readonly environment: StorageContext['environment']
}

export async function unpackZip({ archive, archiveSize, to, limits }: UnpackTask, signal: AbortSignal): Promise<void> {
  const { default: yauzl } = await import('yauzl')
  // Names as they are stored: what yauzl would do with bad ones is TreeNames' business.
  const options = { decodeStrings: false, validateEntrySizes: true, autoClose: false }
  const zip = await yauzl.openPromise(archive, options).catch((error: Error) => {
    throw new StorageError(`It is not a sound zip file (${error.message})`)
  })
  try {
    const items = await readDirectory(zip, yauzl.getFileNameLowLevel, limits, archiveSize)
    const judged = new TreeNames(limits)
    const links: { path: string; text: string }[] = []
    for (const { entry, item } of items) {
      signal.throwIfAborted()
      const path = join(to, entry.path)
      await mkdir(entry.kind === 'folder' ? path : dirname(path), { recursive: true })
      if (entry.kind === 'folder') continue
      const content = await zip.openReadStreamPromise(item)
      if (isLink(item)) {
        const target = (await buffer(content)).toString('utf8')
        judged.add({ kind: 'link', path: entry.path, target })
        links.push({ path, text: target })
      } else await pipeline(content, createWriteStream(path, { flags: 'wx', mode: 0o644 }), { signal })
    }
    // Last, so that nothing is written through one.
    for (const { path, text } of links) await symlink(text, path)
  } catch (error) {
    signal.throwIfAborted()
    throw error instanceof StorageError || !isZipError(error)
      ? error
      : new StorageError(`The zip file is damaged (${error.message})`)
  } finally {
    zip.close()
  }
}

type ReadName = (flags: number, name: Buffer, extra: ZipEntry['extraFields'], strict: boolean) => string

async function readDirectory(zip: ZipFile, readName: ReadName, limits: FetchLimits, archiveSize: number) {
  const names = new TreeNames(limits)
  const items: { readonly entry: Entry; readonly item: ZipEntry }[] = []
  let bytes = 0
  let packed = 0
  for await (const item of zip.eachEntry()) {
    // With decodeStrings off it is a Buffer, which yauzl's types do not know.
    const name = readName(item.generalPurposeBitFlag, item.fileNameRaw, item.extraFields, true)
    if (item.isEncrypted()) throw new StorageError(`"${name}" is encrypted`)
    bytes += item.uncompressedSize
    packed += item.compressedSize
    keepRatio(bytes, archiveSize)
    if (packed > archiveSize) throw new StorageError('It is an archive bomb: its files lie on top of each other')
    if (isLink(item) && item.uncompressedSize > longestLink) throw new StorageError(`The link "${name}" is too long`)
    const entry: Entry = name.endsWith('/')
      ? { kind: 'folder', path: name.slice(0, -1) }
      : { kind: 'file', path: name, size: item.uncompressedSize, validator: undefined, ref: '' }
    names.add(entry)
    items.push({ entry, item })
  }
  return items
}

function isLink({ externalFileAttributes }: ZipEntry): boolean {
  return ((externalFileAttributes >>> 16) & typeBits) === linkBits
}

/** System errors have a code in capitals; those of yauzl and zlib speak of the file. */
function isZipError(error: unknown): error is Error {
  return error instanceof Error && (!('syscall' in error) || error.syscall === undefined)
}
