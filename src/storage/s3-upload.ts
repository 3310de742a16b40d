// A large file in parts, as S3 has it ("multipart upload"): begun, sent, completed, and the object is there; or aborted, and
// nothing is.

import { elementText } from './http-refusal.ts'
import type { S3Client } from './s3-client.ts'
import { type Part, TransientError, type Upload } from './source.ts'
import { StorageError } from './storage.ts'
import { type SendPart, sendParts } from './upload-parts.ts'

/** Time for telling the server to forget the parts, after a failure or a stop. Milliseconds. */
const abortMs = 10_000

export interface S3Upload {
  /** For people. */
  readonly path: string
  readonly key: string
  readonly upload: Upload
  readonly parts: readonly Part[]
}

/** Rejects as `Target.write` does, or with the signal's reason. */
export async function uploadInParts(client: S3Client, task: S3Upload, signal: AbortSignal): Promise<void> {
  const { path, key, upload, parts } = task
  const uploadId = await begin(client, task, signal)
  try {
    const send: SendPart = async ({ number, size }, body, signal) => {
      const query = { partNumber: String(number), uploadId }
      const headers = { 'content-length': String(size) }
      const response = await client.send({ method: 'PUT', key, query, headers, body }, signal)
      if (response.status !== 200) throw await client.refuse(`Writing part ${number} of "${path}"`, response)
      await response.body.bytes()
      return response.header('etag')
    }
    await complete(client, { ...task, uploadId }, await sendParts(upload, parts, send, signal), signal)
  } catch (error) {
    await abort(client, key, uploadId)
    throw error
  }
}

async function begin(client: S3Client, { path, key }: S3Upload, signal: AbortSignal): Promise<string> {
  const response = await client.send({ method: 'POST', key, query: { uploads: '' } }, signal)
  if (response.status !== 200) throw await client.refuse(`Beginning to write "${path}"`, response)
  const uploadId = elementText(await response.body.text(), 'UploadId')
  if (uploadId === '') throw new StorageError(`Beginning to write "${path}" was answered without an upload id`)
  return uploadId
}

/** When its answer is lost nobody knows whether it was done: then all of it begins again. */
async function complete(
  client: S3Client,
  { path, key, parts, uploadId }: S3Upload & { readonly uploadId: string },
  tags: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const lines = parts.map(({ number }, at) => `<Part><PartNumber>${number}</PartNumber><ETag>${tags[at]}</ETag></Part>`)
  const body = `<CompleteMultipartUpload>${lines.join('')}</CompleteMultipartUpload>`
  const response = await client.send({ method: 'POST', key, query: { uploadId }, body }, signal)
  if (response.status !== 200) throw await client.refuse(`Completing "${path}"`, response)
  // S3 says 200 before it begins, and may fail after that.
  const xml = await response.body.text()
  const code = elementText(xml, 'Code')
  if (code !== '') throw new TransientError(`Completing "${path}" failed (${code}: ${elementText(xml, 'Message')})`)
}

/** The failure before it is what people hear of. What cannot be aborted is left to the bucket's own rules. */
async function abort(client: S3Client, key: string, uploadId: string): Promise<void> {
  const request = { method: 'DELETE', key, query: { uploadId } }
  await client.send(request, AbortSignal.timeout(abortMs)).then(
    response => response.body.cancel(),
    () => undefined,
  )
}
