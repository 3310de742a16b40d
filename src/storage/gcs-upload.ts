// A large object piece by piece, as Google has it ("resumable upload"): begun, sent one piece after the other, and the object
// is there with the last one. After a cut a piece is sent again: to ask how much of it has arrived (`bytes */SIZE`) would make
// fake-gcs-server take the half for the whole.

import * as v from 'valibot'
import { parseJson } from './bearer-token.ts'
import { storageError } from './blame.ts'
import type { HttpRequest, HttpResponse } from './http.ts'
import { isTransient, withRetries } from './retry.ts'
import { type Part, TransientError, type Upload } from './source.ts'
import { StorageError } from './storage.ts'

/** Time for telling the server to forget what has arrived, after a failure or a stop. Milliseconds. */
const abortMs = 10_000

/** What is said of the object when it is there. */
const Written = v.looseObject({ size: v.pipe(v.union([v.string(), v.number()]), v.transform(Number)) })

export interface GcsUpload {
  readonly upload: Upload
  /** Path and query of the request that begins it. */
  readonly beginning: string
  /** In bytes, a multiple of 256 KiB. */
  readonly pieceBytes: number
  readonly send: (request: Omit<HttpRequest, 'origin'>, signal: AbortSignal) => Promise<HttpResponse>
  readonly refuse: (response: HttpResponse) => Promise<Error>
}

/** Rejects as `Target.write` does, or with the signal's reason. */
export async function uploadResumably(task: GcsUpload, signal: AbortSignal): Promise<void> {
  const session = await begin(task, signal)
  try {
    await sendPieces(task, session, signal)
  } catch (error) {
    const request = { method: 'DELETE', path: session, headers: { 'content-length': '0' } }
    await task.send(request, AbortSignal.timeout(abortMs)).then(
      response => response.body.cancel(),
      () => undefined,
    )
    // Not transient any more: or all of it would be begun again.
    throw isTransient(error) ? storageError('A part did not arrive', error) : error
  }
}

/** Path and query of the session. Its host is not followed: no other one gets the token. */
async function begin({ beginning, upload, send, refuse }: GcsUpload, signal: AbortSignal): Promise<string> {
  const headers = { 'content-length': '0', 'x-upload-content-length': String(upload.size) }
  const response = await send({ method: 'POST', path: beginning, headers }, signal)
  if (response.status !== 200) throw await refuse(response)
  await response.body.bytes()
  const url = URL.parse(response.header('location'))
  if (!url) throw new StorageError('Beginning to write was answered without an address to write to')
  return `${url.pathname}${url.search}`
}

/** One after the other. Google may keep less of a piece than was sent, and ignores what it has already when that is sent again. */
async function sendPieces(task: GcsUpload, session: string, signal: AbortSignal): Promise<void> {
  const { upload, pieceBytes } = task
  for (let arrived = 0; arrived < upload.size; ) {
    const piece = { number: 1, start: arrived, size: Math.min(pieceBytes, upload.size - arrived) }
    arrived = await withRetries(() => sendPiece(task, session, piece, signal), signal)
  }
}

/** How many bytes of the whole have arrived after it. */
async function sendPiece(
  { upload, send, refuse }: GcsUpload,
  session: string,
  piece: Part,
  signal: AbortSignal,
): Promise<number> {
  const end = piece.start + piece.size
  const headers = {
    'content-length': String(piece.size),
    'content-range': `bytes ${piece.start}-${end - 1}/${upload.size}`,
  }
  const request = { method: 'PUT', path: session, headers, body: await upload.open(piece) }
  const response = await send(request, signal)
  const { status } = response
  // 308: "Resume Incomplete".
  if (status !== 200 && status !== 201 && status !== 308) throw await refuse(response)
  const text = await response.body.text()
  if (status === 308) {
    const arrived = Number(/^bytes=0-(\d+)$/.exec(response.header('range'))?.[1] ?? -1) + 1
    if (arrived <= piece.start) throw new TransientError('The server has kept nothing of what was sent')
    return arrived
  }
  const { success, output } = v.safeParse(Written, parseJson(text))
  // A server that did not ignore what it had already.
  if (success && output.size !== upload.size)
    throw new StorageError(`The server has ${output.size} bytes of ${upload.size}, as it says`)
  return upload.size
}
