// `s3://` and `s3a://` in a `remote-file-system` block, with the settings of s3fs.

import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import type { RemoteUrl } from './protocols.ts'
import { openBucket } from './s3.ts'
import { type ClientParameters, clientSettings, splitBucketPath } from './s3-settings.ts'
import type { Remote } from './source.ts'

const text = v.nullish(v.string())

const Settings = v.looseObject({
  key: text,
  username: text,
  secret: text,
  password: text,
  token: text,
  anon: v.nullish(v.boolean()),
  profile: text,
  endpoint_url: text,
  requester_pays: v.nullish(v.boolean()),
  use_ssl: v.nullish(v.boolean()),
  client_kwargs: v.nullish(
    v.looseObject({
      aws_access_key_id: text,
      aws_secret_access_key: text,
      aws_session_token: text,
      endpoint_url: text,
      region_name: text,
      verify: v.nullish(v.union([v.boolean(), v.string()])),
    }),
  ),
  config_kwargs: v.nullish(
    v.looseObject({ s3: v.nullish(v.looseObject({ addressing_style: text })), region_name: text }),
  ),
})

export function openS3Url(
  url: RemoteUrl,
  settings: Readonly<Record<string, unknown>>,
  context: StorageContext,
): Remote {
  const found = readFields(`remote-file-system (${url.protocol})`, Settings, settings)
  const { client_kwargs: client, config_kwargs: config } = found
  const parameters: v.InferOutput<typeof ClientParameters> = {
    endpoint_url: found.endpoint_url || client?.endpoint_url,
    region_name: client?.region_name || config?.region_name,
    verify: client?.verify,
    verify_cert_path: undefined,
    config: { s3: config?.s3, signature_version: undefined },
  }
  const keys = {
    accessKeyId: found.key || found.username || client?.aws_access_key_id || undefined,
    secretAccessKey: found.secret || found.password || client?.aws_secret_access_key || undefined,
    sessionToken: found.token || client?.aws_session_token || undefined,
    profile: found.profile || undefined,
    anonymous: found.anon ?? undefined,
    requesterPays: found.requester_pays ?? undefined,
  }
  return openBucket(
    { ...splitBucketPath(url.rest), ...keys, ...clientSettings(parameters), folderMarkers: true },
    context,
  )
}
