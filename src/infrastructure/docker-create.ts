// Decides what the create call of Docker's API is given for one run. Pure: values in, values out.
//
// Names and labels made here are what later lives of the agent find a container by. Source of the network, host and
// environment rules: prefect 2.20.25 infrastructure/container.py.

import type { DockerSettings } from './docker-settings.ts'
import { type Attempt, type RunSpec, resolveValue, startIn } from './infrastructure.ts'

/** Where the run's code and files lie in a container; a folder of our own, so that nothing of the image is touched. */
export const containerFolders = { workspace: '/rigel/workspace', files: '/rigel/files' } as const

/** Raised when labels change their meaning; an agent leaves containers of a higher one alone. */
export const labelVersion = 1

/** All labels of ours; `version` marks a container as an agent's. */
export const label = {
  version: 'io.rigel.version',
  flowRunId: 'io.rigel.flow-run-id',
  transitionId: 'io.rigel.transition-id',
  /** The agent that started it: the first 8 hex digits of its transition ids. */
  agent: 'io.rigel.agent',
  autoRemove: 'io.rigel.auto-remove',
  streamOutput: 'io.rigel.stream-output',
} as const

/** Facts of the machine and the engine that the rules depend on. */
export interface CreateFacts {
  readonly engineVersion: string
  /** How many containers of this attempt were given up before they were started: each has a name of its own. */
  readonly generation: number
  /** `process.platform` of the agent: host networking is Linux' alone. */
  readonly platform: string
}

export interface CreatePlan {
  readonly name: string
  readonly image: string
  /** The first word of the command, for messages. */
  readonly command: string
  /** An existing folder of the container that its code and files can be unpacked into: `/`, or the volume at `/rigel`. */
  readonly filesRoot: '/' | '/rigel'
  /** JSON for `POST /containers/create`. Holds secrets. */
  readonly body: Readonly<Record<string, unknown>>
  /** Networks to connect after the create call, for older engines take one only. */
  readonly moreNetworks: readonly string[]
}

export function buildCreatePlan(spec: RunSpec, settings: DockerSettings, facts: CreateFacts): CreatePlan {
  const networkMode = chooseNetworkMode(spec, settings, facts)
  const [network, ...moreNetworks] = settings.networks
  const hasFiles = spec.workspace !== undefined || Object.keys(spec.files).length > 0
  const { host, config } = settings.create
  const image = settings.image ?? defaultImage
  // Docker refuses to copy into a read-only root, but not into a volume, which goes with the container.
  const needsVolume = hasFiles && host.ReadonlyRootfs === true
  const words = spec.command.map(word => resolveValue(word, foldersOf(spec)))
  const body = {
    ...(spec.workspace === undefined ? {} : { WorkingDir: startIn(containerFolders.workspace, spec) }),
    ...config,
    ...(needsVolume ? { Volumes: { ...asObject(config.Volumes), '/rigel': {} } } : {}),
    Image: image,
    Cmd: words,
    Env: buildEnv(spec, settings, networkMode),
    Labels: buildDockerLabels(spec, settings),
    ...(network === undefined
      ? {}
      : { NetworkingConfig: { EndpointsConfig: { [network]: {} }, ...asObject(config.NetworkingConfig) } }),
    HostConfig: {
      ...host,
      ...((networkMode ?? network) ? { NetworkMode: networkMode ?? network } : {}),
      ...listField('Binds', [...settings.volumes, ...asTexts(host.Binds)]),
      ...listField('ExtraHosts', [...extraHosts(settings, networkMode, facts), ...asTexts(host.ExtraHosts)]),
      ...(settings.memoryLimit === undefined ? {} : { Memory: settings.memoryLimit }),
      ...(settings.memorySwapLimit === undefined ? {} : { MemorySwap: settings.memorySwapLimit }),
      ...(settings.privileged ? { Privileged: true } : {}),
    },
  }
  return {
    name: containerName(spec.name, spec.attempt, facts.generation),
    image,
    command: words[0] ?? '',
    filesRoot: needsVolume ? '/rigel' : '/',
    body,
    moreNetworks,
  }
}

/** What Prefect fills in when a block is created; a stored block nearly always names its image. */
export const defaultImage = 'prefecthq/prefect:2-python3.11'

/**
 * Prefect's readable slug and the attempt: a second create for one attempt is refused by the engine. 250 characters are
 * Prefect's limit for the whole. A start is asked for by name, so a name is not used again once a start may be under way.
 */
export function containerName(name: string, attempt: string, generation: number): string {
  const end = generation === 0 ? attempt : `${attempt}-${generation + 1}`
  const slug = name
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .replace(/[^A-Za-z0-9_.-]+/g, '-')
    .replace(/-{2,}/g, '-')
    .slice(0, 250 - 1 - end.length)
    .replace(/^[-_.]+|[-_.]+$/g, '')
  return `${slug || 'rigel'}-${end}`
}

export function buildDockerLabels(spec: RunSpec, settings: DockerSettings): Record<string, string> {
  return {
    ...spec.labels,
    [label.version]: String(labelVersion),
    [label.flowRunId]: spec.flowRunId,
    [label.transitionId]: spec.transitionId,
    [label.agent]: spec.transitionId.slice(0, 8),
    [label.autoRemove]: String(settings.autoRemove),
    [label.streamOutput]: String(settings.streamOutput),
  }
}

/** True when this container was made for this very claim. */
export function isOurs(labels: Readonly<Record<string, string>>, attempt: Attempt): boolean {
  return labels[label.transitionId] === attempt.transitionId && labels[label.flowRunId] === attempt.flowRunId
}

/** A server on the host's loopback can only be reached through the host's own network. */
function chooseNetworkMode(spec: RunSpec, settings: DockerSettings, facts: CreateFacts): string | undefined {
  if (settings.networkMode !== undefined) return settings.networkMode
  if (settings.networks.length > 0) return undefined
  const url = spec.env.PREFECT_API_URL
  if (facts.platform !== 'linux' || typeof url !== 'string' || !URL.canParse(url)) return undefined
  return ['127.0.0.1', 'localhost'].includes(new URL(url).hostname) ? 'host' : undefined
}

function buildEnv(spec: RunSpec, settings: DockerSettings, networkMode: string | undefined): string[] {
  const rewrites = settings.apiUrl === undefined && networkMode !== 'host'
  const entries = Object.entries(spec.env).map(([name, value]) => {
    const text = resolveValue(value, foldersOf(spec))
    return `${name}=${name === 'PREFECT_API_URL' && rewrites ? viaDockerHost(text) : text}`
  })
  // A name without "=" takes the variable out of the image's own environment.
  return [...entries, ...spec.unsetEnv]
}

function viaDockerHost(url: string): string {
  return url.replaceAll('localhost', 'host.docker.internal').replaceAll('127.0.0.1', 'host.docker.internal')
}

function extraHosts(settings: DockerSettings, networkMode: string | undefined, facts: CreateFacts): string[] {
  const url = settings.apiUrl
  const isWanted = url === undefined || /localhost|127\.0\.0\.1|host\.docker\.internal/.test(url)
  if (facts.platform !== 'linux' || !isWanted || !knowsHostGateway(facts.engineVersion)) return []
  // The network of another container brings that one's hosts file; Docker refuses entries of our own.
  if (networkMode?.startsWith('container:') || networkMode === 'none') return []
  return ['host.docker.internal:host-gateway']
}

/** `host-gateway` came with Docker 20.10. */
export function knowsHostGateway(version: string): boolean {
  const [major = 0, minor = 0] = version.split(/[.-]/).map(Number)
  return major > 20 || (major === 20 && minor >= 10)
}

function listField(name: string, items: readonly string[]): Record<string, readonly string[]> {
  return items.length > 0 ? { [name]: [...new Set(items)] } : {}
}

function asTexts(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter(item => typeof item === 'string') : []
}

function asObject(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value))
    : {}
}

/** What values of the run's environment and command stand for. */
function foldersOf(spec: RunSpec) {
  return { ...containerFolders, workspace: startIn(containerFolders.workspace, spec) }
}
