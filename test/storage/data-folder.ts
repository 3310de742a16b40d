// A folder of one's own below the data of a server that serves files of this machine: SMB, SFTP, FTP, WebDAV, HTTP.

import { randomBytes } from 'node:crypto'
import { chown, mkdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'

export interface DataFolder extends AsyncDisposable {
  /** On this machine. */
  readonly path: string
  /** Below the server's data. */
  readonly name: string
  put(path: string, bytes: string | Uint8Array): Promise<void>
}

/** `owner` is the user that the server's own rights are those of; default the one who runs the tests. */
export async function makeDataFolder(data: string, owner?: number): Promise<DataFolder> {
  const name = `test-${randomBytes(6).toString('hex')}`
  const path = join(data, name)
  await mkdir(join(path, 'flows'), { recursive: true })
  return {
    path,
    name,
    async put(file, bytes) {
      const at = join(path, 'flows', file)
      await mkdir(dirname(at), { recursive: true })
      await writeFile(at, bytes)
      if (owner !== undefined) await chown(at, owner, owner)
    },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  }
}
