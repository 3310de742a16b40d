// The block types that a new database starts with: what agents, engines and `deployment apply` meet in practice.
//
// Slugs, field names, capabilities and secrets are Prefect's; descriptions are ours. A Python client that saves a block of
// one of these types registers its own, fuller schema beside the one made here.

export interface BlockTypeSeed {
  readonly slug: string
  readonly name: string
  readonly description: string
  readonly capabilities: readonly string[]
  readonly required: readonly string[]
  readonly secrets: readonly string[]
  /** Field name to JSON type; a `?` is nothing special here, all that is not required is optional. */
  readonly fields: Readonly<Record<string, FieldType>>
}

type FieldType = 'string' | 'integer' | 'number' | 'boolean' | 'object' | 'array'

const FILES = ['get-directory', 'put-directory', 'read-path', 'write-path']
const RUNS = ['run-infrastructure']
const NAMED = { env: 'object', labels: 'object', name: 'string', command: 'array' } as const

export const BLOCK_TYPES: readonly BlockTypeSeed[] = [
  {
    slug: 'process',
    name: 'Process',
    description: 'Runs a command as a process on the machine of the agent.',
    capabilities: RUNS,
    required: [],
    secrets: [],
    fields: { type: 'string', ...NAMED, stream_output: 'boolean', working_dir: 'string' },
  },
  {
    slug: 'docker-container',
    name: 'Docker Container',
    description: 'Runs a command in a Docker container.',
    capabilities: RUNS,
    required: [],
    secrets: ['image_registry.password'],
    fields: {
      type: 'string',
      ...NAMED,
      image: 'string',
      image_pull_policy: 'string',
      image_registry: 'object',
      networks: 'array',
      network_mode: 'string',
      auto_remove: 'boolean',
      volumes: 'array',
      stream_output: 'boolean',
      memswap_limit: 'string',
      mem_limit: 'string',
      privileged: 'boolean',
    },
  },
  {
    slug: 'kubernetes-job',
    name: 'Kubernetes Job',
    description: 'Runs a command as a Kubernetes Job.',
    capabilities: RUNS,
    required: [],
    secrets: [],
    fields: {
      type: 'string',
      ...NAMED,
      image: 'string',
      namespace: 'string',
      service_account_name: 'string',
      image_pull_policy: 'string',
      cluster_config: 'object',
      job: 'object',
      customizations: 'array',
      job_watch_timeout_seconds: 'integer',
      pod_watch_timeout_seconds: 'integer',
      stream_output: 'boolean',
      finished_job_ttl: 'integer',
    },
  },
  {
    slug: 'kubernetes-cluster-config',
    name: 'Kubernetes Cluster Config',
    description: 'How to reach a Kubernetes cluster.',
    capabilities: [],
    required: ['config', 'context_name'],
    secrets: [],
    fields: { config: 'object', context_name: 'string' },
  },
  {
    slug: 'docker-registry',
    name: 'Docker Registry',
    description: 'Credentials for a Docker registry.',
    capabilities: ['docker-login'],
    required: ['username', 'password', 'registry_url'],
    secrets: ['password'],
    fields: { username: 'string', password: 'string', registry_url: 'string', reauth: 'boolean' },
  },
  {
    slug: 'local-file-system',
    name: 'Local File System',
    description: 'Files on the machine where the code runs.',
    capabilities: FILES,
    required: [],
    secrets: [],
    fields: { basepath: 'string' },
  },
  {
    slug: 'remote-file-system',
    name: 'Remote File System',
    description: 'Files behind any protocol that fsspec knows.',
    capabilities: FILES,
    required: ['basepath'],
    secrets: [],
    fields: { basepath: 'string', settings: 'object' },
  },
  {
    slug: 's3',
    name: 'S3',
    description: 'Files in an S3 bucket.',
    capabilities: FILES,
    required: ['bucket_path'],
    secrets: ['aws_access_key_id', 'aws_secret_access_key'],
    fields: { bucket_path: 'string', aws_access_key_id: 'string', aws_secret_access_key: 'string' },
  },
  {
    slug: 'gcs',
    name: 'GCS',
    description: 'Files in a Google Cloud Storage bucket.',
    capabilities: FILES,
    required: ['bucket_path'],
    secrets: ['service_account_info'],
    fields: { bucket_path: 'string', service_account_info: 'string', project: 'string' },
  },
  {
    slug: 'azure',
    name: 'Azure',
    description: 'Files in Azure Blob Storage.',
    capabilities: FILES,
    required: ['bucket_path'],
    secrets: [
      'azure_storage_connection_string',
      'azure_storage_account_name',
      'azure_storage_account_key',
      'azure_storage_tenant_id',
      'azure_storage_client_id',
      'azure_storage_client_secret',
      'azure_storage_container',
    ],
    fields: {
      bucket_path: 'string',
      azure_storage_connection_string: 'string',
      azure_storage_account_name: 'string',
      azure_storage_account_key: 'string',
      azure_storage_tenant_id: 'string',
      azure_storage_client_id: 'string',
      azure_storage_client_secret: 'string',
      azure_storage_anon: 'boolean',
      azure_storage_container: 'string',
    },
  },
  {
    slug: 'smb',
    name: 'SMB',
    description: 'Files on an SMB share.',
    capabilities: FILES,
    required: ['share_path', 'smb_host'],
    secrets: ['smb_username', 'smb_password'],
    fields: {
      share_path: 'string',
      smb_username: 'string',
      smb_password: 'string',
      smb_host: 'string',
      smb_port: 'integer',
    },
  },
  {
    slug: 'github',
    name: 'GitHub',
    description: 'Files of a GitHub repository.',
    capabilities: ['get-directory'],
    required: ['repository'],
    secrets: ['access_token'],
    fields: { repository: 'string', reference: 'string', access_token: 'string', include_git_objects: 'boolean' },
  },
  {
    slug: 'secret',
    name: 'Secret',
    description: 'One secret text.',
    capabilities: [],
    required: ['value'],
    secrets: ['value'],
    fields: { value: 'string' },
  },
  {
    slug: 'json',
    name: 'JSON',
    description: 'Any JSON value.',
    capabilities: [],
    required: ['value'],
    secrets: [],
    fields: { value: 'object' },
  },
  {
    slug: 'string',
    name: 'String',
    description: 'One text.',
    capabilities: [],
    required: ['value'],
    secrets: [],
    fields: { value: 'string' },
  },
]
