// `gcs-bucket` of prefect-gcp, with `gcp-credentials`.

import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { loginOf, openGcsBucket } from './gcs.ts'
import type { StorageBlock } from './registry.ts'
import type { Remote } from './source.ts'

export const GcpCredentials = v.looseObject({
  service_account_file: v.nullish(v.string()),
  service_account_info: v.nullish(v.union([v.string(), v.record(v.string(), v.unknown())])),
})

const Fields = v.object({
  bucket: v.pipe(v.string(), v.nonEmpty()),
  gcp_credentials: v.nullish(GcpCredentials),
  bucket_folder: v.nullish(v.string(), ''),
})

export function openGcsBucketBlock(data: StorageBlock['data'], context: StorageContext): Remote {
  const { bucket, gcp_credentials: credentials, bucket_folder: base } = readFields('gcs-bucket', Fields, data)
  const login = loginOf({ key: credentials?.service_account_info, path: credentials?.service_account_file })
  return openGcsBucket({ bucket, base: base ?? '', login, folderMarkers: false }, context)
}
