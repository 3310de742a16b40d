// `smb://` in a `remote-file-system` block, with the settings of fsspec's SMBFileSystem.

import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { takeLogin } from './http-login.ts'
import type { RemoteUrl } from './protocols.ts'
import { openSmbShare, splitSharePath, splitUser } from './smb.ts'
import type { Remote } from './source.ts'
import { StorageError } from './storage.ts'

const text = v.nullish(v.string())
const Settings = v.looseObject({
  host: text,
  port: v.nullish(v.pipe(v.union([v.number(), v.string()]), v.transform(Number), v.integer())),
  username: text,
  password: text,
  encrypt: v.nullish(v.boolean()),
})

/** `smb://domain;user:password@host:port/share/folder`; what the settings say goes first. */
export function openSmbUrl(
  { rest }: RemoteUrl,
  settings: Readonly<Record<string, unknown>>,
  context: StorageContext,
): Remote {
  const fields = readFields('remote-file-system (smb)', Settings, settings)
  const [authority = '', ...path] = rest.split('/')
  const url = URL.parse(`smb://${authority}`)
  if (!url?.hostname) throw new StorageError('Field "basepath" names no host: smb://host/share/folder')
  const own = takeLogin(url)
  return openSmbShare(
    {
      ...splitSharePath(path.join('/')),
      host: fields.host || url.hostname,
      port: fields.port ?? (url.port === '' ? undefined : Number(url.port)),
      ...splitUser(fields.username || own?.username),
      password: fields.password || own?.password || undefined,
      encrypt: fields.encrypt ?? false,
    },
    context,
  )
}
