// Image references such as `registry:5000/team/image:tag@sha256:...`, and which pull policy and login they call for.

import type { PullPolicy } from './docker-settings.ts'

export interface ImageReference {
  /** Registry host with port; `docker.io` when none is named. */
  readonly registry: string
  /** All before tag and digest, as written. */
  readonly repository: string
  readonly tag: string | undefined
  readonly digest: string | undefined
}

/** Docker's own grammar; unlike Prefect's reading, a digest or a registry's port is not taken for a tag. */
export function parseReference(text: string): ImageReference {
  const at = text.indexOf('@')
  const digest = at < 0 ? undefined : text.slice(at + 1)
  const named = at < 0 ? text : text.slice(0, at)
  const colon = named.lastIndexOf(':')
  const hasTag = colon > named.lastIndexOf('/')
  const repository = hasTag ? named.slice(0, colon) : named
  const first = repository.split('/', 1)[0] ?? ''
  const isHost = repository.includes('/') && (/[.:]/.test(first) || first === 'localhost')
  return {
    registry: isHost ? first : 'docker.io',
    repository,
    tag: hasTag ? named.slice(colon + 1) : undefined,
    digest,
  }
}

/** Prefect's rule: a moving tag is always pulled. What a digest names never changes, so it is not. */
export function defaultPullPolicy(reference: ImageReference): PullPolicy {
  if (reference.digest) return 'IF_NOT_PRESENT'
  return reference.tag === undefined || reference.tag === 'latest' ? 'ALWAYS' : 'IF_NOT_PRESENT'
}

/** Host of a registry as users write it: with or without scheme and path; Docker Hub's many names are one. */
export function registryHost(url: string): string {
  const host = url
    .trim()
    .replace(/^\w+:\/\//, '')
    .replace(/\/.*$/, '')
    .toLowerCase()
  return ['index.docker.io', 'registry-1.docker.io', 'registry.hub.docker.com', 'hub.docker.com'].includes(host)
    ? 'docker.io'
    : host
}
