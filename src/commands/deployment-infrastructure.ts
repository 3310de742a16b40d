// What stands about blocks in a deployment file: a block of the server by its name and id, with its fields for people to read, or
// an infrastructure of the deployment's own with every field at its default, to be edited there.

import { ConfigError } from '../config/config-error.ts'
import { findNearest } from '../config/nearest.ts'
import { isTable } from '../config/settings-file.ts'
import { baseJobManifest } from '../infrastructure/base-job-manifest.ts'
import type { BlockDocument } from '../prefect/types.ts'
import { maskSecrets } from './block-secrets.ts'
import { storageBlockOf } from './fetch.ts'

type Fields = Readonly<Record<string, unknown>>

/** In the order in which Prefect 2.20 writes them, each block's own fields after these. */
const common = { env: {}, labels: {}, name: null, command: null }

const defaults: Readonly<Record<string, (image: string | null) => Fields>> = {
  process: () => ({ type: 'process', ...common, stream_output: true, working_dir: null }),
  'docker-container': image => ({
    type: 'docker-container',
    ...common,
    image,
    image_pull_policy: null,
    image_registry: null,
    networks: [],
    network_mode: null,
    auto_remove: false,
    volumes: [],
    stream_output: true,
    memswap_limit: null,
    mem_limit: null,
    privileged: false,
  }),
  'kubernetes-job': image => ({
    type: 'kubernetes-job',
    ...common,
    image,
    namespace: 'default',
    service_account_name: null,
    image_pull_policy: null,
    cluster_config: null,
    job: baseJobManifest,
    customizations: [],
    job_watch_timeout_seconds: null,
    pod_watch_timeout_seconds: 60,
    stream_output: true,
    finished_job_ttl: null,
  }),
}

/** `--infra`. Throws a ConfigError for a type that Rigel does not run. */
export function readInfrastructureType(type: string): string {
  if (Object.hasOwn(defaults, type)) return type
  const nearest = findNearest(type, Object.keys(defaults))
  throw new ConfigError(`--infra is "${type}", but Rigel runs ${Object.keys(defaults).join(', ')}.`, {
    hint: nearest ? `Did you mean "${nearest}"?` : 'A block of another type is named with --infra-block TYPE/NAME.',
  })
}

/** `image`: the one that fits the Prefect which runs the flow; null leaves it to whoever starts the container. */
export function buildInfrastructure(type: string, image: string | null): Fields {
  return { ...defaults[type]?.(image), block_type_slug: type, _block_type_slug: type }
}

/** By name and id, with its fields for people; secrets are masked, also those that no schema speaks of. */
export function describeBlock(document: BlockDocument): Fields {
  const { slug, data } = storageBlockOf(document)
  const schema = document.block_schema?.fields ?? {}
  const shown = Object.entries(maskSecrets({ ...readDefaults(slug, schema), ...data })).filter(
    ([field]) => field !== 'block_type_slug',
  )
  return {
    ...Object.fromEntries(
      shown.map(([field, value]) => [field, isSecret(field, value, schema.secret_fields) ? '**********' : value]),
    ),
    _block_document_id: document.id,
    _block_document_name: document.name,
    _is_anonymous: document.is_anonymous,
    block_type_slug: slug,
    _block_type_slug: slug,
  }
}

/** A server stores what was given; Prefect writes all fields. */
function readDefaults(slug: string, { properties }: Fields): Fields {
  const own = defaults[slug]
  if (own) return own(null)
  if (!isTable(properties)) return {}
  const given = Object.entries(properties).map(([field, property]) => [
    field,
    isTable(property) && 'default' in property ? property.default : null,
  ])
  return Object.fromEntries(given)
}

function isSecret(field: string, value: unknown, secrets: unknown): boolean {
  if (value === null || value === undefined || !Array.isArray(secrets)) return false
  return secrets.some(secret => String(secret).split('.')[0] === field)
}
