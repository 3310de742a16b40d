// Requests to an SFTP server as promises, and a file as a stream of reads of which several are under way.

import type { SFTPWrapper } from 'ssh2'
import { sshError } from './sftp-session.ts'
import { ChangedError, type FileEntry } from './source.ts'
import { StorageError } from './storage.ts'

const readsAhead = 16
/** What every server gives in one answer. */
const readBytes = 32 * 1024

/** A request as a promise. */
export function ask<T>(what: string, send: (done: (error: Error | undefined, result: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    try {
      send((error, result) => (error ? reject(sshError(what, error)) : resolve(result)))
    } catch (error) {
      // ssh2 throws at once when the connection has gone.
      reject(sshError(what, error))
    }
  })
}

/** A request that is only done or refused. */
export function tell(what: string, send: (done: (error?: Error | null) => void) => void): Promise<void> {
  return ask(what, done => send(error => done(error ?? undefined, undefined)))
}

/** Several reads under way, in order; ends at the size that was listed, or at the end of the file when none was. */
export async function* readAhead(
  sftp: SFTPWrapper,
  handle: Buffer,
  { path, size }: FileEntry,
  offset: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const end = size ?? Number.POSITIVE_INFINITY
  const places = placesOf(offset, end)
  const pending: Promise<Uint8Array>[] = []
  const fill = () => {
    while (pending.length < readsAhead) {
      const at = places.next().value
      if (at === undefined) return
      const reading = readAt(sftp, handle, at, Math.min(readBytes, end - at), path)
      // Looked at when its turn comes, or never.
      reading.catch(() => undefined)
      pending.push(reading)
    }
  }
  try {
    for (;;) {
      fill()
      const reading = pending.shift()
      if (!reading) return
      const chunk = await reading
      signal.throwIfAborted()
      if (chunk.length > 0) yield chunk
      if (size === undefined && chunk.length < readBytes) return
      if (size !== undefined && chunk.length === 0) throw new ChangedError(`"${path}" is shorter than it was listed`)
    }
  } finally {
    // Nobody waits for it: a handle that stays open goes with the connection.
    try {
      sftp.close(handle, () => undefined)
    } catch {
      // The connection has gone, and the handle with it.
    }
  }
}

function* placesOf(from: number, end: number): Generator<number, void, undefined> {
  for (let at = from; at < end; at += readBytes) yield at
}

/** A server may give less than it was asked for, in the middle of a file too. */
async function readAt(
  sftp: SFTPWrapper,
  handle: Buffer,
  at: number,
  length: number,
  path: string,
): Promise<Uint8Array> {
  const buffer = Buffer.allocUnsafe(length)
  let got = 0
  while (got < length) {
    const read = await ask<number>(`Reading "${path}"`, done =>
      sftp.read(handle, buffer, got, length - got, at + got, done),
    ).catch((error: unknown) => {
      // Status 1: the end of the file.
      if (error instanceof StorageError && /\bEOF\b|end of file|status 1\b/i.test(error.message)) return 0
      throw error
    })
    if (read === 0) break
    got += read
  }
  return buffer.subarray(0, got)
}
