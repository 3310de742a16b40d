// `s3`: a folder in a bucket of S3 or of what speaks like it, and the same for `s3://` URLs and `s3-bucket` blocks.

import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { unescapeXml } from './http-refusal.ts'
import { joinBelow } from './paths.ts'
import type { StorageBlock } from './registry.ts'
import { credentialsKind, readEndpoint } from './s3-access.ts'
import { S3Client, s3Connections } from './s3-client.ts'
import { type S3Settings, splitBucketPath } from './s3-settings.ts'
import { uploadInParts } from './s3-upload.ts'
import {
  ChangedError,
  type Content,
  type Entry,
  type FileEntry,
  type FileSource,
  type Remote,
  type Target,
  type Upload,
} from './source.ts'
import { StorageError } from './storage.ts'
import { defaultPartRule, type PartRule, splitIntoParts } from './upload-parts.ts'

const Fields = v.object({
  bucket_path: v.pipe(v.string(), v.nonEmpty()),
  aws_access_key_id: v.nullish(v.string()),
  aws_secret_access_key: v.nullish(v.string()),
})

/** Prefect 2's own `s3` block: no region, endpoint or session token, these come from the environment. */
export function openS3(data: StorageBlock['data'], context: StorageContext): Remote {
  const { bucket_path, aws_access_key_id, aws_secret_access_key } = readFields('s3', Fields, data)
  const keys = { accessKeyId: aws_access_key_id || undefined, secretAccessKey: aws_secret_access_key || undefined }
  return openBucket({ ...splitBucketPath(bucket_path), ...keys, folderMarkers: true }, context)
}

export function openBucket(settings: S3Settings, context: StorageContext, partRule = defaultPartRule): Remote {
  if (settings.bucket === '') throw new StorageError('No bucket is named')
  const open = (path: string | undefined) =>
    new S3Folder({ ...settings, base: joinBelow(settings.base, path) }, context, partRule)
  return { folder: open, target: open }
}

class S3Folder implements FileSource, Target {
  readonly kind = 'files'
  readonly connections = s3Connections
  readonly place: string
  readonly credentials: string
  readonly identity: readonly unknown[]
  readonly #settings: S3Settings
  readonly #folder: string
  readonly #partRule: PartRule
  readonly #client: S3Client

  /** `base` of the settings is the folder itself. */
  constructor(settings: S3Settings, context: StorageContext, partRule: PartRule) {
    const endpoint = readEndpoint(settings, context.environment)
    this.#settings = settings
    this.#folder = settings.base
    this.#partRule = partRule
    this.#client = new S3Client(settings, context)
    this.place = `s3://${settings.bucket}/${settings.base}${endpoint ? ` at ${endpoint.host}` : ''}`
    this.credentials = credentialsKind(settings)
    this.identity = ['s3', settings, endpoint?.href]
  }

  async *list(signal: AbortSignal): AsyncGenerator<readonly Entry[]> {
    const prefix = this.#folder === '' ? '' : `${this.#folder}/`
    let isEmpty = true
    for (let token = ''; ; ) {
      const query = {
        'list-type': '2',
        'encoding-type': 'url',
        prefix,
        ...(token ? { 'continuation-token': token } : {}),
      }
      const response = await this.#client.send({ method: 'GET', key: '', query }, signal)
      if (response.status !== 200) throw await this.#client.refuse('Listing it', response)
      const page = readListing(await response.body.text())
      const entries = page.objects.flatMap(object => this.#entryOf(object, prefix))
      isEmpty &&= entries.length === 0
      yield entries
      if (page.next === undefined) break
      token = page.next
    }
    if (isEmpty) await this.#refuseFile(signal)
  }

  async open(file: FileEntry, offset: number, signal: AbortSignal): Promise<Content> {
    const headers = {
      ...(file.validator === undefined ? {} : { 'if-match': file.validator }),
      ...(offset > 0 ? { range: `bytes=${offset}-` } : {}),
    }
    const response = await this.#client.send({ method: 'GET', key: file.ref, headers }, signal)
    const { status, body } = response
    if (status === 200 || status === 206) {
      const validator = response.header('etag') || undefined
      return { offset: status === 206 ? offset : 0, stream: body, validator, bytes: limit => body.bytes(limit) }
    }
    const error = await this.#client.refuse(`Reading "${file.path}"`, response)
    throw status === 404 || status === 412 || status === 416 ? new ChangedError(error.message) : error
  }

  read(path: string, offset: number, signal: AbortSignal): Promise<Content> {
    const ref = this.#keyOf(path)
    return this.open({ kind: 'file', path, size: undefined, validator: undefined, ref }, offset, signal)
  }

  async write(path: string, upload: Upload, signal: AbortSignal): Promise<void> {
    const parts = splitIntoParts(upload.size, this.#partRule)
    if (parts) return uploadInParts(this.#client, { path, key: this.#keyOf(path), upload, parts }, signal)
    const headers = { 'content-length': String(upload.size) }
    const request = { method: 'PUT', key: this.#keyOf(path), headers, body: () => upload.open() }
    const response = await this.#client.send(request, signal)
    if (response.status !== 200) throw await this.#client.refuse(`Writing "${path}"`, response)
    await response.body.bytes()
  }

  close(): Promise<void> {
    return this.#client.close()
  }

  #keyOf(path: string): string {
    return this.#folder === '' ? path : `${this.#folder}/${path}`
  }

  #entryOf({ key, size, etag }: ListedObject, prefix: string): readonly Entry[] {
    const path = key.slice(prefix.length)
    if (path === '') return []
    if (path.endsWith('/') && size === 0) {
      return this.#settings.folderMarkers ? [{ kind: 'folder', path: path.slice(0, -1) }] : []
    }
    return [{ kind: 'file', path, size, validator: etag || undefined, ref: key }]
  }

  /** An empty listing is often a path that names a file. */
  async #refuseFile(signal: AbortSignal): Promise<void> {
    if (this.#folder === '') return
    const response = await this.#client.send({ method: 'HEAD', key: this.#folder }, signal)
    response.body.cancel()
    if (response.status === 200) throw new StorageError('It is a file, not a folder')
  }
}

interface ListedObject {
  readonly key: string
  readonly size: number
  readonly etag: string
}

/**
 * Keys arrive URL-encoded where the server says so, for XML cannot hold every character that a key can. A server that does not
 * know `encoding-type` leaves both out.
 */
function readListing(xml: string): { readonly objects: readonly ListedObject[]; readonly next: string | undefined } {
  const objects: ListedObject[] = []
  const isEncoded = /<EncodingType>\s*url\s*<\/EncodingType>/.test(xml)
  for (const [, object = ''] of xml.matchAll(/<Contents>(.*?)<\/Contents>/gs)) {
    const key = unescapeXml(/<Key>([^<]*)<\/Key>/.exec(object)?.[1] ?? '')
    const etag = /<ETag>([^<]*)<\/ETag>/.exec(object)?.[1] ?? ''
    const size = Number(/<Size>(\d+)<\/Size>/.exec(object)?.[1])
    objects.push({ key: isEncoded ? decodeKey(key) : key, size, etag: unescapeXml(etag) })
  }
  const next = /<NextContinuationToken>([^<]*)<\/NextContinuationToken>/.exec(xml)?.[1]
  return { objects, next: next === undefined ? undefined : unescapeXml(next) }
}

function decodeKey(key: string): string {
  return decodeURIComponent(key.replaceAll('+', ' '))
}
