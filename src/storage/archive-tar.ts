// Unpacks a tar file that may be hostile, plain or compressed: read once to judge everything in it, then once to write.

import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { ReadEntry } from 'tar'
import { readTarFile } from './archive-compression.ts'
import { keepRatio } from './archive-limits.ts'
import type { UnpackTask } from './archive-zip.ts'
import type { Entry } from './source.ts'
import { StorageError } from './storage.ts'
import { TreeNames } from './tree-names.ts'

export async function unpackTar(
  { archive, archiveSize, to, limits, environment }: UnpackTask,
  signal: AbortSignal,
): Promise<void> {
  const { Parser, Unpack } = await import('tar')
  const names = new TreeNames(limits)
  const files = new Set<string>()
  let bytes = 0
  let refusal: Error | undefined
  const judge = (entry: ReadEntry) => {
    if (refusal) return
    try {
      bytes += entry.size
      keepRatio(bytes, archiveSize)
      const known = describe(entry, files)
      if (known === undefined) return
      names.add(known)
      if (known.kind === 'file') files.add(known.path)
    } catch (error) {
      refusal = error instanceof Error ? error : new Error(String(error))
      // Nothing after it is of interest, and it may be without end.
      parser.abort(refusal)
    }
  }
  const parser = new Parser({
    strict: true,
    onReadEntry(entry) {
      judge(entry)
      entry.resume()
    },
  })
  const bytesOf = () => readTarFile(archive, environment, signal)
  await through(bytesOf(), parser, signal).catch(error => {
    throw refusal ?? error
  })
  if (refusal) throw refusal
  await through(
    bytesOf(),
    new Unpack({ cwd: to, strict: true, preserveOwner: false, noMtime: true, onReadEntry: plainMode }),
    signal,
  )
}

/** As Prefect's fsspec does: modes of the archive do not count. */
function plainMode(entry: ReadEntry): void {
  entry.mode = entry.type === 'Directory' ? 0o755 : 0o644
}

async function through(
  bytes: AsyncIterable<Uint8Array>,
  parser: NodeJS.WritableStream,
  signal: AbortSignal,
): Promise<void> {
  try {
    // As a stream: into a parser that is none of Node's own, an iterable never comes to its end.
    await pipeline(Readable.from(bytes, { objectMode: false }), parser, { signal })
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof StorageError || (error instanceof Error && 'syscall' in error)) throw error
    const words = error instanceof Error ? error.message : 'it cannot be read'
    // The package's own limit, a thousand times, may be reached before ours is.
    const what = /decompression ratio/.test(words) ? 'It is an archive bomb' : 'It is not a sound tar file'
    throw new StorageError(`${what} (${words})`)
  }
}

/** Undefined for the top itself. Throws for what is neither file, folder nor link. */
function describe(entry: ReadEntry, files: ReadonlySet<string>): Entry | undefined {
  const path = tidy(entry.path)
  if (path === '' || path === '.') return undefined
  switch (entry.type) {
    case 'File':
    case 'OldFile':
    case 'ContiguousFile':
      return { kind: 'file', path, size: entry.size, validator: undefined, ref: '' }
    case 'Directory':
    case 'GNUDumpDir':
      return { kind: 'folder', path }
    case 'SymbolicLink':
      return { kind: 'link', path, target: entry.linkpath ?? '' }
    case 'Link':
      // A second name of a file that came before.
      if (files.has(tidy(entry.linkpath ?? ''))) return { kind: 'file', path, size: 0, validator: undefined, ref: '' }
      throw new StorageError(`"${path}" is a second name of "${entry.linkpath}", which is not in the archive before it`)
    default:
      throw new StorageError(`"${path}" is neither a file, a folder nor a link (${entry.type})`)
  }
}

/** `./a/` is `a`; all else stays for TreeNames to judge. */
function tidy(path: string): string {
  return path.replace(/^(\.\/)+/, '').replace(/\/$/, '')
}
