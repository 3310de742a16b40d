// What is needed to reach a bucket, and how the fields of credentials are read that several block types share.

import * as v from 'valibot'

export interface S3Settings {
  readonly bucket: string
  /** Folder in the bucket; '' is the top. */
  readonly base: string
  readonly accessKeyId?: string | undefined
  readonly secretAccessKey?: string | undefined
  readonly sessionToken?: string | undefined
  /** Profile of ~/.aws. */
  readonly profile?: string | undefined
  readonly assumeRole?: string | undefined
  readonly anonymous?: boolean | undefined
  readonly region?: string | undefined
  /** With scheme; default: Amazon's for the region. */
  readonly endpoint?: string | undefined
  /** Default: the bucket in the path for an endpoint of one's own, in the host name for Amazon's; as boto does. */
  readonly pathStyle?: boolean | undefined
  readonly caFile?: string | undefined
  readonly insecure?: boolean | undefined
  readonly requesterPays?: boolean | undefined
  /** Zero-byte objects whose key ends with `/` become empty folders (Prefect's `s3` block) or are skipped (`s3-bucket`). */
  readonly folderMarkers: boolean
}

const text = v.nullish(v.string())
const AddressingStyle = v.nullish(
  v.looseObject({ s3: v.nullish(v.looseObject({ addressing_style: text })), signature_version: text }),
)

/** `AwsClientParameters` of prefect-aws; `verify` may be a path as in boto. */
export const ClientParameters = v.nullish(
  v.looseObject({
    endpoint_url: text,
    region_name: text,
    verify: v.nullish(v.union([v.boolean(), v.string()])),
    verify_cert_path: text,
    config: AddressingStyle,
  }),
)

/** `aws-credentials` and `minio-credentials`, told apart by their fields. */
export const Credentials = v.looseObject({
  aws_access_key_id: text,
  aws_secret_access_key: text,
  aws_session_token: text,
  profile_name: text,
  region_name: text,
  minio_root_user: text,
  minio_root_password: text,
  assume_role_arn: text,
  aws_client_parameters: ClientParameters,
})

type Place = Pick<S3Settings, 'bucket' | 'base' | 'folderMarkers'>

export function settingsOf(place: Place, credentials: v.InferOutput<typeof Credentials> | undefined): S3Settings {
  if (!credentials) return place
  return {
    ...place,
    accessKeyId: credentials.minio_root_user || credentials.aws_access_key_id || undefined,
    secretAccessKey: credentials.minio_root_password || credentials.aws_secret_access_key || undefined,
    sessionToken: credentials.aws_session_token || undefined,
    profile: credentials.profile_name || undefined,
    assumeRole: credentials.assume_role_arn || undefined,
    region: credentials.region_name || undefined,
    ...clientSettings(credentials.aws_client_parameters),
  }
}

/** Only what is said is in the result. */
export function clientSettings(parameters: v.InferOutput<typeof ClientParameters>): Partial<S3Settings> {
  const style = parameters?.config?.s3?.addressing_style
  const caFile = parameters?.verify_cert_path || (typeof parameters?.verify === 'string' && parameters.verify)
  return {
    ...(parameters?.region_name ? { region: parameters.region_name } : {}),
    ...(parameters?.endpoint_url ? { endpoint: parameters.endpoint_url } : {}),
    ...(style === 'path' || style === 'virtual' ? { pathStyle: style === 'path' } : {}),
    ...(parameters?.verify === false ? { insecure: true } : {}),
    ...(caFile ? { caFile } : {}),
  }
}

/** Splits `bucket/some/folder`, with or without `s3://`. */
export function splitBucketPath(path: string): { readonly bucket: string; readonly base: string } {
  const [bucket = '', ...rest] = path
    .replace(/^[a-z0-9]+:\/\//i, '')
    .replace(/^\/+/, '')
    .split('/')
  return { bucket, base: rest.join('/') }
}
