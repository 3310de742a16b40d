// `gcs`: a folder in a bucket of Google Cloud Storage, and the same for `gs://` URLs and `gcs-bucket`. Over the JSON API:
// Google's SDK takes more than twice as long.

import * as v from 'valibot'
import { parseJson } from './bearer-token.ts'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { type GcsLogin, type GetToken, openGcsLogin } from './gcs-login.ts'
import { type GcsUpload, uploadResumably } from './gcs-upload.ts'
import { HttpClient, type HttpRequest, type HttpResponse } from './http.ts'
import { caFileOf } from './http-login.ts'
import { refusal } from './http-refusal.ts'
import { joinBelow } from './paths.ts'
import type { StorageBlock } from './registry.ts'
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

const connections = 64

export interface GcsSettings {
  readonly bucket: string
  /** Folder in the bucket; '' is the top. */
  readonly base: string
  readonly login: GcsLogin
  /** Default: the emulator that STORAGE_EMULATOR_HOST names, else Google's. */
  readonly endpoint?: string | undefined
  /** Zero-byte objects whose name ends with `/` become empty folders (`gcs`) or are skipped (`gcs-bucket`). */
  readonly folderMarkers: boolean
}

const Fields = v.object({
  bucket_path: v.pipe(v.string(), v.nonEmpty()),
  service_account_info: v.nullish(v.string()),
})

export function openGcs(data: StorageBlock['data'], context: StorageContext): Remote {
  const { bucket_path, service_account_info: key } = readFields('gcs', Fields, data)
  return openGcsBucket({ ...splitGcsPath(bucket_path), login: loginOf({ key }), folderMarkers: true }, context)
}

/** The best of what a block says. */
export function loginOf({
  key,
  path,
}: {
  readonly key?: unknown
  readonly path?: string | null | undefined
}): GcsLogin {
  if (key) return { kind: 'service account of the block', key }
  if (path) return { kind: 'key file of the block', path }
  return { kind: 'application default credentials of this machine' }
}

export function splitGcsPath(path: string): { readonly bucket: string; readonly base: string } {
  const [bucket = '', ...rest] = path
    .replace(/^[a-z]+:\/\//i, '')
    .replace(/^\/+/, '')
    .split('/')
  return { bucket, base: rest.join('/') }
}

export function openGcsBucket(settings: GcsSettings, context: StorageContext, partRule = defaultPartRule): Remote {
  if (settings.bucket === '') throw new StorageError('No bucket is named')
  const open = (path: string | undefined) =>
    new GcsFolder({ ...settings, base: joinBelow(settings.base, path) }, context, partRule)
  return { folder: open, target: open }
}

/** The block's, else the emulator's that the environment names; undefined: Google's. */
function readEndpoint(
  { endpoint }: GcsSettings,
  { STORAGE_EMULATOR_HOST }: StorageContext['environment'],
): URL | undefined {
  const text = endpoint ?? STORAGE_EMULATOR_HOST
  if (!text) return undefined
  const url = URL.parse(text.includes('://') ? text : `http://${text}`)
  if (!url)
    throw new StorageError(`"${endpoint === undefined ? 'STORAGE_EMULATOR_HOST' : 'endpoint_url'}" is not a URL`)
  return url
}

const Listing = v.looseObject({
  items: v.optional(
    v.array(
      v.looseObject({
        name: v.string(),
        size: v.pipe(v.union([v.string(), v.number()]), v.transform(Number)),
        generation: v.optional(v.union([v.string(), v.number()])),
        etag: v.optional(v.string()),
        contentEncoding: v.optional(v.string()),
      }),
    ),
    [],
  ),
  nextPageToken: v.optional(v.string(), ''),
})
type ListedObject = v.InferOutput<typeof Listing>['items'][number]

class GcsFolder implements FileSource, Target {
  readonly kind = 'files'
  readonly connections = connections
  readonly place: string
  readonly credentials: string
  readonly identity: readonly unknown[]
  readonly #settings: GcsSettings
  readonly #folder: string
  readonly #partRule: PartRule
  readonly #origin: string
  readonly #http: HttpClient
  readonly #getToken: GetToken

  /** `base` of the settings is the folder itself. */
  constructor(settings: GcsSettings, context: StorageContext, partRule: PartRule) {
    const endpoint = readEndpoint(settings, context.environment)
    this.#settings = settings
    this.#folder = settings.base
    this.#partRule = partRule
    this.#origin = endpoint?.origin ?? 'https://storage.googleapis.com'
    this.#http = new HttpClient({ connections, caFile: caFileOf(context) }, context)
    this.#getToken = openGcsLogin(settings.login, this.#http, context)
    this.place = `gs://${settings.bucket}/${settings.base}${endpoint ? ` at ${endpoint.origin}` : ''}`
    this.credentials = settings.login.kind
    this.identity = ['gcs', settings, this.#origin]
  }

  async *list(signal: AbortSignal): AsyncGenerator<readonly Entry[]> {
    const prefix = this.#folder === '' ? '' : `${this.#folder}/`
    let isEmpty = true
    for (let pageToken = ''; ; ) {
      const fields = 'nextPageToken,items(name,size,generation,etag,contentEncoding)'
      const query = new URLSearchParams({ prefix, maxResults: '1000', fields, ...(pageToken ? { pageToken } : {}) })
      const response = await this.#get(`?${query.toString()}`, signal)
      if (response.status !== 200) throw await refuse('Listing it', response)
      const page = v.safeParse(Listing, parseJson(await response.body.text()))
      if (!page.success) throw new StorageError('Listing it was answered with something else than a listing')
      const entries = page.output.items.flatMap(object => this.#entryOf(object, prefix))
      isEmpty &&= entries.length === 0
      yield entries
      pageToken = page.output.nextPageToken
      if (pageToken === '') break
    }
    if (isEmpty) await this.#refuseFile(signal)
  }

  async open(file: FileEntry, offset: number, signal: AbortSignal): Promise<Content> {
    const [generation = ''] = (file.validator ?? '').split('/')
    const condition = generation === '' ? '' : `&ifGenerationMatch=${generation}`
    const response = await this.#get(`/${encodeURIComponent(file.ref)}?alt=media${condition}`, signal, offset)
    const { status, body } = response
    // Not every server that speaks like Google's keeps the condition; the answer says what it is of.
    const answered = response.header('x-goog-generation')
    if ((status === 200 || status === 206) && generation !== '' && answered !== '' && answered !== generation) {
      body.cancel()
      throw new ChangedError(`"${file.path}" has changed`)
    }
    if (status === 200 || status === 206) {
      const validator = response.header('x-goog-generation') || response.header('etag') || undefined
      return { offset: status === 206 ? offset : 0, stream: body, validator, bytes: limit => body.bytes(limit) }
    }
    const error = await refuse(`Reading "${file.path}"`, response)
    throw status === 404 || status === 412 || status === 416 ? new ChangedError(error.message) : error
  }

  read(path: string, offset: number, signal: AbortSignal): Promise<Content> {
    const ref = this.#nameOf(path)
    return this.open({ kind: 'file', path, size: undefined, validator: undefined, ref }, offset, signal)
  }

  async write(path: string, upload: Upload, signal: AbortSignal): Promise<void> {
    const address = `/upload${this.#objects()}?fields=size&name=${encodeURIComponent(this.#nameOf(path))}&uploadType=`
    const send: GcsUpload['send'] = (request, signal) => this.#send(request, signal)
    const refused: GcsUpload['refuse'] = response => refuse(`Writing "${path}"`, response)
    const [piece] = splitIntoParts(upload.size, this.#partRule) ?? []
    if (piece) {
      const task = { upload, beginning: `${address}resumable`, pieceBytes: piece.size, send, refuse: refused }
      return uploadResumably(task, signal)
    }
    const headers = { 'content-type': 'application/octet-stream', 'content-length': String(upload.size) }
    const request = { method: 'POST', path: `${address}media`, headers, body: await upload.open() }
    const response = await send(request, signal)
    if (response.status !== 200) throw await refused(response)
    await response.body.bytes()
  }

  close(): Promise<void> {
    return this.#http.close()
  }

  #get(below: string, signal: AbortSignal, offset = 0): Promise<HttpResponse> {
    const headers: Record<string, string> = offset > 0 ? { range: `bytes=${offset}-` } : {}
    return this.#send({ method: 'GET', path: `${this.#objects()}${below}`, headers }, signal)
  }

  async #send(request: Omit<HttpRequest, 'origin'>, signal: AbortSignal): Promise<HttpResponse> {
    const token = await this.#getToken(signal)
    const headers = {
      ...request.headers,
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    }
    return this.#http.send({ ...request, origin: this.#origin, headers }, signal)
  }

  #objects(): string {
    return `/storage/v1/b/${encodeURIComponent(this.#settings.bucket)}/o`
  }

  #nameOf(path: string): string {
    return this.#folder === '' ? path : `${this.#folder}/${path}`
  }

  #entryOf({ name, size, generation, etag, contentEncoding }: ListedObject, prefix: string): readonly Entry[] {
    const path = name.slice(prefix.length)
    if (path === '') return []
    if (path.endsWith('/') && size === 0) {
      return this.#settings.folderMarkers ? [{ kind: 'folder', path: path.slice(0, -1) }] : []
    }
    const validator = generation === undefined ? etag : `${generation}/${size}`
    // Stored compressed, sent uncompressed: how long it will be nobody says.
    const arriving = contentEncoding === 'gzip' ? undefined : size
    return [{ kind: 'file', path, size: arriving, validator, ref: name }]
  }

  /** An empty listing is often a path that names a file. */
  async #refuseFile(signal: AbortSignal): Promise<void> {
    if (this.#folder === '') return
    const response = await this.#get(`/${encodeURIComponent(this.#folder)}?fields=name`, signal)
    await response.body.bytes()
    if (response.status === 200) throw new StorageError('It is a file, not a folder')
  }
}

const Refusal = v.looseObject({ error: v.union([v.string(), v.looseObject({ message: v.optional(v.string(), '') })]) })

function refuse(what: string, response: HttpResponse): Promise<Error> {
  return refusal(what, response, body => {
    const { success, output } = v.safeParse(Refusal, parseJson(body))
    if (!success) return /^[\x20-\x7e]{1,200}$/.test(body.trim()) ? body.trim() : ''
    return typeof output.error === 'string' ? output.error : output.error.message
  })
}
