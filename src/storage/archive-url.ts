// `zip://` and `tar://` in a `remote-file-system` block: a folder in an archive that lies on any other storage, named by
// fsspec's setting `fo` or by a chain: `zip://folder::s3://bucket/code.zip`.

import { createReadStream } from 'node:fs'
import { mkdir, mkdtemp, stat } from 'node:fs/promises'
import { basename, dirname, isAbsolute, join, posix } from 'node:path'
import * as v from 'valibot'
import { type ArchiveDownload, downloadArchive, keepArchiveLimit } from './archive-download.ts'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { liftFolder } from './lift-folder.ts'
import { joinBelow } from './paths.ts'
import { openUrl, type RemoteUrl } from './protocols.ts'
import { ChangedError, type Reader, type Remote, type TreeSource } from './source.ts'
import { StorageError } from './storage.ts'
import { removeTree } from './workspace.ts'

const Options = v.nullish(v.record(v.string(), v.unknown()))
const Settings = v.looseObject({
  fo: v.nullish(v.string()),
  target_protocol: v.nullish(v.string()),
  target_options: Options,
})

type OpenFile = () => Promise<{
  readonly reader: Reader
  readonly name: string
}>

export async function openArchiveUrl(
  { protocol, rest }: RemoteUrl,
  settings: Readonly<Record<string, unknown>>,
  context: StorageContext,
): Promise<Remote> {
  const fields = readFields(`remote-file-system (${protocol})`, Settings, settings)
  const [base = '', ...outer] = rest.split('::')
  const file = fields.fo || outer.join('::')
  if (!file) {
    throw new StorageError(
      `The block names no archive: give "fo", or write ${protocol}://folder::s3://bucket/code.${protocol}`,
    )
  }
  const open = await openFile(file, fields, settings, context)
  const { reader, name } = await open()
  await reader.close()
  const kind = protocol === 'zip' ? 'zip' : 'tar'
  if (kind === 'tar' && /\.(lzma|lz|lzo|lz4|br|Z)$/.test(name)) {
    throw new StorageError(`"${name}": of compressed tar files only those by gzip, bzip2, xz and zstd can be read`)
  }
  const identity = [protocol, file, settings]
  return {
    folder: from =>
      new ArchiveFolder(
        {
          kind,
          open,
          name,
          place: reader.place,
          credentials: reader.credentials,
          identity,
          folder: joinBelow(base, from),
        },
        context,
      ),
  }
}

async function openFile(
  file: string,
  { target_protocol: protocol, target_options: options }: v.InferOutput<typeof Settings>,
  settings: Readonly<Record<string, unknown>>,
  context: StorageContext,
): Promise<OpenFile> {
  const [, scheme, inside = file] = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/is.exec(file) ?? []
  const known = (scheme ?? protocol ?? 'file').toLowerCase()
  if (known === 'file' || known === 'local') return async () => ({ reader: localFile(inside), name: basename(inside) })
  if (known === 'zip' || known === 'tar' || inside.includes('::'))
    throw new StorageError('An archive in an archive is not supported')
  // A chain of fsspec has the settings of each part under the name of its protocol.
  const own = v.safeParse(Options, settings[known])
  const name = posix.basename(inside)
  const remote = await openUrl(
    { protocol: known, rest: posix.dirname(inside) },
    options ?? (own.success ? own.output : undefined) ?? {},
    context,
  )
  const openReader = remote.reader?.bind(remote) ?? remote.target?.bind(remote)
  if (!openReader) throw new StorageError(`A single file cannot be read by the protocol "${known}"`)
  return async () => ({ reader: openReader(undefined), name })
}

function localFile(path: string): Reader {
  if (!isAbsolute(path))
    throw new StorageError(`The path of the archive "${path}" is relative, and an agent has no folder of its own`)
  return {
    place: dirname(path),
    credentials: 'rights of the agent',
    async read() {
      const { size, mtimeMs, ino } = await stat(path)
      return { offset: 0, stream: createReadStream(path), validator: `${mtimeMs}/${size}/${ino}` }
    },
    close: () => Promise.resolve(),
  }
}

interface ArchivePlace {
  readonly kind: 'zip' | 'tar'
  readonly open: OpenFile
  readonly name: string
  readonly place: string
  readonly credentials: string
  readonly identity: readonly unknown[]
  readonly folder: string
}

class ArchiveFolder implements TreeSource {
  readonly kind = 'tree'
  readonly place: string
  readonly credentials: string
  readonly identity: readonly unknown[]
  readonly #place: ArchivePlace
  readonly #context: StorageContext

  constructor(place: ArchivePlace, context: StorageContext) {
    this.#place = place
    this.#context = context
    this.place = `folder "${place.folder}" of the ${place.kind} file "${place.name}" in ${place.place}`
    this.credentials = place.credentials
    this.identity = [...place.identity, place.folder]
  }

  /** Where the file cannot be looked at, asks for it and lets go of it when the answer begins. */
  async revision(signal: AbortSignal): Promise<string | undefined> {
    return this.#withFile(signal, async (read, reader) => {
      const known = await reader.look?.(this.#place.name, signal)
      if (known) {
        keepArchiveLimit(known.size ?? 0, this.#context.limits)
        return known.validator
      }
      const content = await read(0)
      // Begun, so that it ends: a body that nobody has looked at would keep its connection.
      for await (const _ of content.stream) break
      return content.validator
    })
  }

  async fetchTree(revision: string | undefined, to: string, signal: AbortSignal): Promise<void> {
    const { limits, environment } = this.#context
    const aside = await mkdtemp(join(to, '.archive-'))
    const archive = join(aside, 'archive')
    const tree = join(to, 'tree')
    await mkdir(tree)
    await this.#withFile(signal, read => downloadArchive({ read, revision, to: archive, limits }, signal))
    const task = { archive, archiveSize: (await stat(archive)).size, to: tree, limits, environment }
    if (this.#place.kind === 'zip') await (await import('./archive-zip.ts')).unpackZip(task, signal)
    else await (await import('./archive-tar.ts')).unpackTar(task, signal)
    await removeTree(aside)
    await this.#refuseFile(tree)
    await liftFolder(to, posix.join('tree', this.#place.folder), false)
  }

  async close(): Promise<void> {
    // Each reading closes what it has opened.
  }

  async #withFile<T>(
    signal: AbortSignal,
    use: (read: ArchiveDownload['read'], reader: Reader) => Promise<T>,
  ): Promise<T> {
    const { reader, name } = await this.#place.open()
    const read = (offset: number) =>
      reader.read(name, offset, signal).catch((error: unknown) => {
        // Not there: nobody has listed it, so there is nothing to list again.
        throw error instanceof ChangedError && offset === 0 ? new StorageError(error.message) : error
      })
    try {
      return await use(read, reader)
    } finally {
      await reader.close()
    }
  }

  async #refuseFile(tree: string): Promise<void> {
    const found = await stat(join(tree, this.#place.folder)).catch(() => undefined)
    if (found && !found.isDirectory()) throw new StorageError('It is a file, not a folder')
  }
}
