// `s3-bucket` of prefect-aws, with `aws-credentials` or `minio-credentials`.

import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import type { StorageBlock } from './registry.ts'
import { openBucket } from './s3.ts'
import { Credentials, settingsOf } from './s3-settings.ts'
import type { Remote } from './source.ts'

const Fields = v.object({
  bucket_name: v.pipe(v.string(), v.nonEmpty()),
  credentials: v.nullish(Credentials),
  bucket_folder: v.nullish(v.string(), ''),
  // As prefect-aws named them before 0.4.
  aws_credentials: v.nullish(Credentials),
  minio_credentials: v.nullish(Credentials),
  basepath: v.nullish(v.string(), ''),
})

export function openS3Bucket(data: StorageBlock['data'], context: StorageContext): Remote {
  const fields = readFields('s3-bucket', Fields, data)
  const place = { bucket: fields.bucket_name, base: fields.bucket_folder || fields.basepath, folderMarkers: false }
  const credentials = fields.credentials ?? fields.minio_credentials ?? fields.aws_credentials ?? undefined
  return openBucket(settingsOf(place, credentials), context)
}
