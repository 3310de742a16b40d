// The block types of Prefect's integration packages that agents fetch code with, as far as Rigel reads their fields.

import type { BlockTypeSeed } from './block-types.ts'

const FILES = ['get-directory', 'put-directory', 'read-path', 'write-path']
const CODE = ['get-directory']

export const INTEGRATION_BLOCK_TYPES: readonly BlockTypeSeed[] = [
  {
    slug: 's3-bucket',
    name: 'S3 Bucket',
    description: 'Files in an S3 bucket, with credentials of their own.',
    capabilities: FILES,
    required: ['bucket_name'],
    secrets: ['credentials.aws_secret_access_key', 'credentials.minio_root_password'],
    fields: { bucket_name: 'string', credentials: 'object', bucket_folder: 'string' },
  },
  {
    slug: 'aws-credentials',
    name: 'AWS Credentials',
    description: 'Keys of Amazon Web Services.',
    capabilities: [],
    required: [],
    secrets: ['aws_secret_access_key', 'aws_session_token'],
    fields: {
      aws_access_key_id: 'string',
      aws_secret_access_key: 'string',
      aws_session_token: 'string',
      profile_name: 'string',
      region_name: 'string',
      aws_client_parameters: 'object',
      assume_role_arn: 'string',
    },
  },
  {
    slug: 'minio-credentials',
    name: 'MinIO Credentials',
    description: 'Keys of a MinIO server.',
    capabilities: [],
    required: ['minio_root_user', 'minio_root_password'],
    secrets: ['minio_root_password'],
    fields: {
      minio_root_user: 'string',
      minio_root_password: 'string',
      region_name: 'string',
      aws_client_parameters: 'object',
    },
  },
  {
    slug: 'gcs-bucket',
    name: 'GCS Bucket',
    description: 'Files in a Google Cloud Storage bucket, with credentials of their own.',
    capabilities: FILES,
    required: ['bucket'],
    secrets: ['gcp_credentials.service_account_info.*'],
    fields: { bucket: 'string', gcp_credentials: 'object', bucket_folder: 'string' },
  },
  {
    slug: 'gcp-credentials',
    name: 'GCP Credentials',
    description: 'A service account of Google Cloud.',
    capabilities: [],
    required: [],
    secrets: ['service_account_info.*'],
    fields: { service_account_file: 'string', service_account_info: 'object', project: 'string' },
  },
  {
    slug: 'azure-blob-storage-container',
    name: 'Azure Blob Storage Container',
    description: 'Files in a container of Azure Blob Storage, with credentials of their own.',
    capabilities: FILES,
    required: ['container_name', 'credentials'],
    secrets: ['credentials.connection_string', 'credentials.client_secret'],
    fields: { container_name: 'string', credentials: 'object', base_folder: 'string' },
  },
  {
    slug: 'azure-blob-storage-credentials',
    name: 'Azure Blob Storage Credentials',
    description: 'How to reach an account of Azure Blob Storage.',
    capabilities: [],
    required: [],
    secrets: ['connection_string', 'client_secret'],
    fields: {
      connection_string: 'string',
      account_url: 'string',
      tenant_id: 'string',
      client_id: 'string',
      client_secret: 'string',
    },
  },
  repository('github', 'GitHub', 'repository_url', 'credentials', {}),
  credentials('github', 'GitHub', {}),
  repository('gitlab', 'GitLab', 'repository', 'credentials', { git_depth: 'integer' }),
  credentials('gitlab', 'GitLab', { url: 'string' }),
  repository('bitbucket', 'BitBucket', 'repository', 'bitbucket_credentials', {}),
  credentials('bitbucket', 'BitBucket', { username: 'string', password: 'string', url: 'string' }),
]

function repository(
  host: string,
  name: string,
  address: string,
  login: string,
  more: BlockTypeSeed['fields'],
): BlockTypeSeed {
  return {
    slug: `${host}-repository`,
    name: `${name} Repository`,
    description: `Files of a ${name} repository.`,
    capabilities: CODE,
    required: [address],
    secrets: [`${login}.token`, `${login}.password`],
    fields: { [address]: 'string', reference: 'string', [login]: 'object', ...more },
  }
}

function credentials(host: string, name: string, more: BlockTypeSeed['fields']): BlockTypeSeed {
  return {
    slug: `${host}-credentials`,
    name: `${name} Credentials`,
    description: `A token of ${name}.`,
    capabilities: [],
    required: [],
    secrets: ['token', 'password'],
    fields: { token: 'string', ...more },
  }
}
