// Large files go up in parts, on the storages that have it: the rule, and the loop. Each part is sent again
// by itself after a cut, and is read from the disk as it is sent, so that memory does not grow with the file.

import { Scope } from '../async/scope.ts'
import { storageError } from './blame.ts'
import { isTransient, withRetries } from './retry.ts'
import type { Part, Upload } from './source.ts'

/**
 * In bytes. What is refused in one piece, by their own documentation: S3 above 5 GiB, Azure above 5,000 MiB (Put Blob since
 * 2019-12-12). Google takes its largest object, 5 TiB, in one request, but all of it again after a cut; its parts are
 * multiples of 256 KiB.
 * Most parts of one file: S3 10,000, Azure 50,000; smallest part of S3 that is not the last: 5 MiB.
 */
export interface PartRule {
  /** What is not larger goes in one request. */
  readonly wholeBytes: number
  /** Of a part; more where it takes that to stay below 10,000 of them. */
  readonly partBytes: number
}

const mebibyte = 1024 * 1024
const maxParts = 10_000
/** Parts of one file at once, beside other files. */
const partsAtOnce = 4

/** Far below the limits: what a cut connection costs is one part. */
export const defaultPartRule: PartRule = { wholeBytes: 64 * mebibyte, partBytes: 64 * mebibyte }

/** Undefined: the file goes in one request. */
export function splitIntoParts(size: number, { wholeBytes, partBytes }: PartRule): readonly Part[] | undefined {
  if (size <= wholeBytes) return undefined
  const bytes = Math.max(partBytes, Math.ceil(size / maxParts / mebibyte) * mebibyte)
  return Array.from({ length: Math.ceil(size / bytes) }, (_, at) => ({
    number: at + 1,
    start: at * bytes,
    size: Math.min(bytes, size - at * bytes),
  }))
}

/** Sends one part; what it gives is what the storage wants to hear of the part at the end. */
export type SendPart = (part: Part, body: () => ReturnType<Upload['open']>, signal: AbortSignal) => Promise<string>

/** Some at once, each tried again by itself. Rejects with the first failure; then none is under way any more. */
export async function sendParts(
  upload: Upload,
  parts: readonly Part[],
  send: SendPart,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const sent: string[] = []
  const queue = parts.entries()
  const scope = new Scope(signal)
  for (let at = 0; at < Math.min(partsAtOnce, parts.length); at++) {
    scope.spawn(async signal => {
      // One iterator for all of them: each takes the next part.
      for (const [at, part] of queue) {
        sent[at] = await withRetries(() => send(part, () => upload.open(part), signal), signal).catch(error => {
          // Not transient any more: or the whole file, with all parts that have arrived, would be begun again.
          throw isTransient(error) ? storageError(`Part ${part.number} did not arrive`, error) : error
        })
      }
    })
  }
  await scope.join()
  return sent
}
