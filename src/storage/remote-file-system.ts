// `remote-file-system`: a URL of fsspec and settings for it, dispatched by protocol.

import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { openUrl, type RemoteUrl } from './protocols.ts'
import type { StorageBlock } from './registry.ts'
import type { Remote } from './source.ts'
import { StorageError } from './storage.ts'

const Fields = v.object({
  basepath: v.pipe(v.string(), v.nonEmpty()),
  settings: v.nullish(v.record(v.string(), v.unknown()), {}),
})

export async function openRemoteFileSystem(data: StorageBlock['data'], context: StorageContext): Promise<Remote> {
  const { basepath, settings } = readFields('remote-file-system', Fields, data)
  const base = splitUrl(basepath)
  if (!base || base.rest === '') {
    throw new StorageError(
      'Storage block of type "remote-file-system": field "basepath" is not a URL such as s3://bucket/folder',
    )
  }
  const remote = await openUrl(base, settings, context)
  const target = remote.target?.bind(remote)
  return {
    folder: from => remote.folder(belowBase(base, from)),
    ...(target ? { target: to => target(belowBase(base, to)) } : {}),
  }
}

/** A path may be a whole URL; then what it has beyond the base path counts. Prefect appends it a second time instead. */
function belowBase(base: RemoteUrl, from: string | undefined): string | undefined {
  const url = from === undefined ? undefined : splitUrl(from)
  if (!url) return from
  const top = base.rest.replace(/\/+$/, '')
  if (url.protocol !== base.protocol || (url.rest !== top && !url.rest.startsWith(`${top}/`))) {
    throw new StorageError(`The path is a URL that leads out of the base path of its storage block`)
  }
  return url.rest.slice(top.length)
}

export function splitUrl(text: string): RemoteUrl | undefined {
  const match = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/is.exec(text)
  return match?.[1] === undefined ? undefined : { protocol: match[1].toLowerCase(), rest: match[2] ?? '' }
}
