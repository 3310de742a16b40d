// A large blob in blocks: they are sent, and a list of them makes the blob. Blocks that no list names are nobody's: nothing
// shows them, and Azure drops them after a week.

import { randomBytes } from 'node:crypto'
import type { HttpRequest } from './http.ts'
import type { Part, Upload } from './source.ts'
import { type SendPart, sendParts } from './upload-parts.ts'

/** A PUT to the blob. */
export interface AzurePut {
  readonly query: Record<string, string>
  readonly headers?: Record<string, string>
  readonly size: number
  readonly body: HttpRequest['body']
}

export interface AzureUpload {
  readonly upload: Upload
  readonly parts: readonly Part[]
  /** Rejects when it is not done. */
  readonly put: (request: AzurePut, signal: AbortSignal) => Promise<void>
}

/** Rejects as `put` does, or with the signal's reason. */
export async function uploadInBlocks({ upload, parts, put }: AzureUpload, signal: AbortSignal): Promise<void> {
  // Another upload of this blob, now or broken off, has blocks of other names. All names have to be equally long.
  const serial = randomBytes(12).toString('hex')
  const send: SendPart = async ({ number, size }, body, signal) => {
    const blockid = Buffer.from(`${serial}${String(number).padStart(6, '0')}`).toString('base64')
    await put({ query: { comp: 'block', blockid }, size, body: await body() }, signal)
    return blockid
  }
  const ids = await sendParts(upload, parts, send, signal)
  const lines = ids.map(id => `<Latest>${id}</Latest>`)
  const list = `<?xml version="1.0" encoding="utf-8"?><BlockList>${lines.join('')}</BlockList>`
  await put({ query: { comp: 'blocklist' }, size: Buffer.byteLength(list), body: list }, signal)
}
