// Reads the fields of Prefect's `docker-container` block, those of its `docker-registry`, and our additions.
//
// In: the block's fields after overrides. Out: DockerSettings, or an InfrastructureError that names the field.
// Source of names, defaults and rules: prefect 2.20.25 infrastructure/container.py and blocks/core of docker-registry.

import * as v from 'valibot'
import { bool } from './block-values.ts'
import { type CreateFields, readCreateFields } from './docker-create-fields.ts'
import { InfrastructureError } from './infrastructure.ts'

export type PullPolicy = 'IF_NOT_PRESENT' | 'ALWAYS' | 'NEVER'

export interface RegistryLogin {
  readonly username: string
  readonly password: string
  /** As the user wrote it: a host, or a URL. */
  readonly registryUrl: string
}

export interface DockerSettings {
  readonly image: string | undefined
  /** Undefined: decided by the tag, as Prefect does. */
  readonly pullPolicy: PullPolicy | undefined
  readonly registry: RegistryLogin | undefined
  readonly networks: readonly string[]
  readonly networkMode: string | undefined
  readonly autoRemove: boolean
  /** `source:target[:mode]`, Docker's own form. */
  readonly volumes: readonly string[]
  readonly streamOutput: boolean
  /** Bytes. */
  readonly memoryLimit: number | undefined
  /** Bytes of memory and swap together; -1 is unlimited swap. */
  readonly memorySwapLimit: number | undefined
  readonly privileged: boolean
  /** PREFECT_API_URL of the block itself, which is never rewritten. */
  readonly apiUrl: string | undefined
  readonly create: CreateFields
}

/** `128m` and the like, by powers of 1024; a bare number is bytes (docker-py's parse_bytes). */
const bytes = v.pipe(
  v.union([v.number(), v.string()]),
  v.transform(value => parseBytes(String(value))),
  v.number('must be bytes, or a number with b, k, m, g or t'),
)

const texts = v.array(v.string())
const object = v.record(v.string(), v.unknown())

const schema = v.object({
  image: v.nullish(v.pipe(v.string(), v.trim(), v.nonEmpty())),
  image_pull_policy: v.nullish(v.picklist(['IF_NOT_PRESENT', 'ALWAYS', 'NEVER'])),
  image_registry: v.nullish(v.object({ username: v.string(), password: v.string(), registry_url: v.string() })),
  networks: v.nullish(texts, []),
  network_mode: v.nullish(v.string()),
  auto_remove: v.nullish(bool, false),
  volumes: v.nullish(
    v.array(
      v.pipe(
        v.string(),
        v.check(text => text.includes(':'), 'must be source:target'),
      ),
    ),
    [],
  ),
  stream_output: v.nullish(bool, true),
  mem_limit: v.nullish(bytes),
  memswap_limit: v.nullish(bytes),
  privileged: v.nullish(bool, false),
  env: v.nullish(object, {}),
  container_create_kwargs: v.nullish(object, {}),
  container_create: v.nullish(object, {}),
})

/** Throws an InfrastructureError that blames the run and names each field that does not fit. */
export function readDockerSettings(settings: Readonly<Record<string, unknown>>): DockerSettings {
  const read = v.safeParse(schema, settings)
  if (!read.success) {
    const faults = read.issues.map(issue => `"${v.getDotPath(issue) ?? ''}": ${issue.message}`)
    throw refuse(`Field ${faults.join('; field ')}`)
  }
  const fields = read.output
  if (fields.network_mode && fields.networks.length > 0) {
    throw refuse('Fields "network_mode" and "networks" exclude each other')
  }
  const memorySwapLimit = fields.memswap_limit ?? undefined
  const memoryLimit = fields.mem_limit ?? undefined
  if (memorySwapLimit !== undefined && memoryLimit === undefined) {
    throw refuse('Field "memswap_limit" needs "mem_limit" beside it')
  }
  const apiUrl = fields.env.PREFECT_API_URL
  const registry = fields.image_registry
  return {
    image: fields.image ?? undefined,
    pullPolicy: fields.image_pull_policy ?? undefined,
    registry: registry
      ? { username: registry.username, password: registry.password, registryUrl: registry.registry_url }
      : undefined,
    networks: fields.networks,
    networkMode: fields.network_mode || undefined,
    autoRemove: fields.auto_remove,
    volumes: fields.volumes,
    streamOutput: fields.stream_output,
    memoryLimit,
    memorySwapLimit,
    privileged: fields.privileged,
    apiUrl: typeof apiUrl === 'string' ? apiUrl : undefined,
    create: readCreateFields({ kwargs: fields.container_create_kwargs, raw: fields.container_create }),
  }
}

function refuse(what: string): InfrastructureError {
  return new InfrastructureError(`${what} (docker-container block).`, { blame: 'run' })
}

/** NaN for what is no size. */
export function parseBytes(text: string): number {
  const match = /^(-1|\d+(?:\.\d+)?)\s*([bkmgt]?)b?$/i.exec(text.trim())
  if (!match?.[1]) return Number.NaN
  const power = ['', 'k', 'm', 'g', 't'].indexOf((match[2] ?? '').toLowerCase().replace('b', ''))
  return Math.trunc(Number(match[1]) * 1024 ** power)
}
