// What every storage driver is given beside its block: limits, the environment, where this machine keeps things.

import type { Logger } from '../logger.ts'
import type { ProxyOptions } from '../proxy.ts'

/** No tree that is fetched may be larger. Beyond one of them the run is Crashed with a sentence that names the limit. */
export interface FetchLimits {
  /** Sum of all file sizes, after unpacking. */
  readonly maxBytes: number
  /** Files, links and folders together. */
  readonly maxFiles: number
  /** From the first request to the last byte on disk, in seconds. */
  readonly maxSeconds: number
}

/** Generous for flow code, small enough that a wrong path (`/`) ends before it fills a disk. */
export const defaultLimits: FetchLimits = { maxBytes: 10 * 1024 ** 3, maxFiles: 200_000, maxSeconds: 600 }

export interface StorageContext {
  /** Process environment as `config/` has read it: AWS_*, GOOGLE_APPLICATION_CREDENTIALS and their like. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** For HTTP and git; what `environment` says of proxies is in it. */
  readonly proxies: ProxyOptions
  /** The user's home: what `~` in a base path means, and where SDKs keep their profiles. */
  readonly home: string
  readonly limits: FetchLimits
  /** Folder of the machine's cache (RIGEL_CACHE_DIR), made when missing; undefined: nothing is kept. */
  readonly cacheDir: string | undefined
  readonly cacheLimits?: CacheLimits
  readonly logger: Logger | undefined
  /** Counts while the fetch goes on, for progress bars and reports. */
  readonly meter?: Meter
}

/** The cache loses what was used least recently beyond these. */
export interface CacheLimits {
  readonly maxBytes: number
  /** Since the last use. */
  readonly maxAgeDays: number
}

export const defaultCacheLimits: CacheLimits = { maxBytes: 10 * 1024 ** 3, maxAgeDays: 30 }

/** What one fetch has moved so far. Files and bytes are those that came from the source; from the cache come none. */
export interface Meter {
  files: number
  bytes: number
  requests: number
  fromCache: boolean
  /** Files that the source has; 0 until it has said. */
  expected: number
}

export function makeMeter(): Meter {
  return { files: 0, bytes: 0, requests: 0, fromCache: false, expected: 0 }
}
