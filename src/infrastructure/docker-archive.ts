// Makes the tar stream that brings a run's code and small files into its container, owned by the container's user.
//
// In: the workspace on this machine, the files' texts, numeric owner. Out: one archive to be unpacked at "/". Sent through
// the API, so it works with an engine on another machine, needs no mount, and touches no file of the image.

import { Readable } from 'node:stream'
import { create, Header } from 'tar'
import { containerFolders } from './docker-create.ts'

export interface Owner {
  readonly uid: number
  readonly gid: number
}

export interface Cargo {
  readonly workspace: string | undefined
  readonly files: Readonly<Record<string, string>>
}

export function isEmpty({ workspace, files }: Cargo): boolean {
  return workspace === undefined && Object.keys(files).length === 0
}

/** To be unpacked at `root`. */
export function packArchive(cargo: Cargo, owner: Owner, root: '/' | '/rigel'): Readable {
  return Readable.from(writeArchive(cargo, owner, root), { objectMode: false })
}

async function* writeArchive({ workspace, files }: Cargo, owner: Owner, root: string): AsyncGenerator<Buffer> {
  const below = (path: string) => path.slice(root === '/' ? 1 : root.length + 1)
  if (root === '/') yield folder('rigel', 0o755, owner)
  yield folder(below(containerFolders.files), 0o700, owner)
  for (const [name, text] of Object.entries(files)) yield file(`${below(containerFolders.files)}/${name}`, text, owner)
  if (workspace === undefined) {
    yield Buffer.alloc(1024)
    return
  }
  yield folder(below(containerFolders.workspace), 0o755, owner)
  // Without its own root, whose mode is 0700 here and would shut out a program that changes its user.
  const pack = create(
    {
      cwd: workspace,
      prefix: below(containerFolders.workspace),
      onWriteEntry: entry => {
        if (!('stat' in entry) || !entry.stat) return
        entry.stat.uid = owner.uid
        entry.stat.gid = owner.gid
        if (entry.path === './' || entry.path === '.') entry.stat.mode = 0o40755
      },
    },
    ['.'],
  )
  for await (const chunk of pack) yield chunk
}

function folder(path: string, mode: number, owner: Owner): Buffer {
  return header({ path: `${path}/`, mode, size: 0, type: 'Directory', ...owner })
}

function file(path: string, text: string, owner: Owner): Buffer {
  const content = Buffer.from(text)
  const padding = Buffer.alloc((512 - (content.length % 512)) % 512)
  const head = header({ path, mode: 0o600, size: content.length, type: 'File', ...owner })
  return Buffer.concat([head, content, padding])
}

function header(fields: ConstructorParameters<typeof Header>[0]): Buffer {
  const head = new Header({ ...(Buffer.isBuffer(fields) ? {} : fields), mtime: new Date() })
  head.encode()
  if (!head.block) throw new Error('tar did not make a header')
  return head.block
}
