// `git://repository:reference@folder` in a `remote-file-system` block, with the settings of fsspec's GitFileSystem: a
// repository on this machine. What fsspec does not know and we do: the repository may be an address that git can fetch from.

import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { openGit } from './git.ts'
import { readGitAddress } from './git-login.ts'
import type { RemoteUrl } from './protocols.ts'
import type { Remote } from './source.ts'
import { StorageError } from './storage.ts'

const text = v.nullish(v.string())
const Settings = v.looseObject({ path: text, fo: text, ref: text })

export function openGitUrl(
  { rest }: RemoteUrl,
  settings: Readonly<Record<string, unknown>>,
  context: StorageContext,
): Remote {
  const fields = readFields('remote-file-system (git)', Settings, settings)
  const [, pathOfUrl, inside = rest] = /^([^:]*):(.*)$/s.exec(rest) ?? []
  const [, refOfUrl, folder = inside] = /^([^@]*)@(.*)$/s.exec(inside) ?? []
  const repository = fields.fo || fields.path || pathOfUrl
  if (!repository) {
    throw new StorageError(
      'The block names no repository: give "path", or write git:///path/of/repository:reference@folder',
    )
  }
  return openGit(
    {
      address: readGitAddress(repository, undefined),
      // fsspec takes "master" where nothing is said, which most repositories do not have any more.
      reference: fields.ref || refOfUrl || undefined,
      base: folder,
      keepsFolder: false,
      keepsGit: false,
    },
    context,
  )
}
