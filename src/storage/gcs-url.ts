// `gs://` and `gcs://` in a `remote-file-system` block, with the settings of gcsfs.

import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { openGcsBucket, splitGcsPath } from './gcs.ts'
import type { GcsLogin } from './gcs-login.ts'
import type { RemoteUrl } from './protocols.ts'
import type { Remote } from './source.ts'

const Settings = v.looseObject({
  token: v.nullish(v.union([v.string(), v.record(v.string(), v.unknown())])),
  endpoint_url: v.nullish(v.string()),
})

export function openGcsUrl(
  url: RemoteUrl,
  settings: Readonly<Record<string, unknown>>,
  context: StorageContext,
): Remote {
  const { token, endpoint_url: endpoint } = readFields(`remote-file-system (${url.protocol})`, Settings, settings)
  return openGcsBucket(
    { ...splitGcsPath(url.rest), login: loginOfToken(token), endpoint: endpoint || undefined, folderMarkers: true },
    context,
  )
}

/** gcsfs takes a key as an object, the path of a key file, or a word; we also take the key's JSON text. */
function loginOfToken(token: string | Record<string, unknown> | null | undefined): GcsLogin {
  if (token === 'anon') return { kind: 'anonymous' }
  if (!token || token === 'google_default' || token === 'cloud' || token === 'cache' || token === 'browser') {
    return { kind: 'application default credentials of this machine' }
  }
  if (typeof token === 'string' && !token.trimStart().startsWith('{'))
    return { kind: 'key file of the block', path: token }
  return { kind: 'service account of the block', key: token }
}
