// `azure`: a folder in a container of Azure Blob Storage, and the same for `az://` URLs and `azure-blob-storage-container`.
// Over the REST API: Microsoft's SDK takes one and a half times as long.

import * as v from 'valibot'
import { type Authorize, openLogin } from './azure-login.ts'
import { type AzureSettings, readAccount } from './azure-settings.ts'
import { type AzurePut, uploadInBlocks } from './azure-upload.ts'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { HttpClient, type HttpRequest, type HttpResponse } from './http.ts'
import { caFileOf } from './http-login.ts'
import { elementText, refusal, unescapeXml } from './http-refusal.ts'
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
import { encodePath } from './url-encoding.ts'

const apiVersion = '2021-08-06'
const connections = 64

const text = v.nullish(v.string())
const Fields = v.object({
  bucket_path: v.string(),
  azure_storage_connection_string: text,
  azure_storage_account_name: text,
  azure_storage_account_key: text,
  azure_storage_tenant_id: text,
  azure_storage_client_id: text,
  azure_storage_client_secret: text,
  azure_storage_anon: v.nullish(v.boolean(), true),
  azure_storage_container: text,
})

export function openAzure(data: StorageBlock['data'], context: StorageContext): Remote {
  const fields = readFields('azure', Fields, data)
  const account = readAccount({
    connectionString: fields.azure_storage_connection_string,
    account: fields.azure_storage_account_name,
    key: fields.azure_storage_account_key,
    tenant: fields.azure_storage_tenant_id,
    client: fields.azure_storage_client_id,
    secret: fields.azure_storage_client_secret,
    anonymous: fields.azure_storage_anon,
  })
  const container = fields.azure_storage_container
  return openContainer(
    { ...account, ...(container ? { container, base: fields.bucket_path } : splitContainerPath(fields.bucket_path)) },
    context,
  )
}

export function splitContainerPath(path: string): { readonly container: string; readonly base: string } {
  const [container = '', ...rest] = path
    .replace(/^[a-z]+:\/\//i, '')
    .replace(/^\/+/, '')
    .split('/')
  return { container, base: rest.join('/') }
}

export function openContainer(settings: AzureSettings, context: StorageContext, partRule = defaultPartRule): Remote {
  if (settings.container === '') throw new StorageError('No container is named')
  const open = (path: string | undefined) =>
    new AzureFolder({ ...settings, base: joinBelow(settings.base, path) }, context, partRule)
  return { folder: open, target: open }
}

class AzureFolder implements FileSource, Target {
  readonly kind = 'files'
  readonly connections = connections
  readonly place: string
  readonly credentials: string
  readonly identity: readonly unknown[]
  readonly #settings: AzureSettings
  readonly #folder: string
  readonly #partRule: PartRule
  readonly #http: HttpClient
  readonly #authorize: Authorize

  /** `base` of the settings is the folder itself. */
  constructor(settings: AzureSettings, context: StorageContext, partRule: PartRule) {
    this.#settings = settings
    this.#folder = settings.base
    this.#partRule = partRule
    this.#http = new HttpClient({ connections, caFile: caFileOf(context) }, context)
    this.#authorize = openLogin(settings.login, this.#http, context.environment)
    this.place = `${settings.endpoint}/${settings.container}/${settings.base}`
    this.credentials = settings.login.kind
    this.identity = ['azure', settings]
  }

  async *list(signal: AbortSignal): AsyncGenerator<readonly Entry[]> {
    const prefix = this.#folder === '' ? '' : `${this.#folder}/`
    let isEmpty = true
    for (let marker = ''; ; ) {
      const query = { restype: 'container', comp: 'list', include: 'metadata', prefix, ...(marker ? { marker } : {}) }
      const response = await this.#send({ method: 'GET', query }, signal)
      if (response.status !== 200) throw await refuse('Listing it', response)
      const xml = await response.body.text()
      const entries = [...readBlobs(xml)].flatMap(blob => entryOf(blob, prefix))
      isEmpty &&= entries.length === 0
      yield entries
      marker = elementText(xml, 'NextMarker')
      if (marker === '') break
    }
    if (isEmpty) await this.#refuseFile(signal)
  }

  async open(file: FileEntry, offset: number, signal: AbortSignal): Promise<Content> {
    const headers = offset > 0 ? { 'x-ms-range': `bytes=${offset}-` } : {}
    const response = await this.#send({ method: 'GET', blob: file.ref, headers }, signal)
    const { status, body } = response
    const isSame = file.validator === undefined || bareTag(response.header('etag')) === file.validator
    if ((status === 200 || status === 206) && isSame) {
      const validator = response.header('etag') || undefined
      return { offset: status === 206 ? offset : 0, stream: body, validator, bytes: limit => body.bytes(limit) }
    }
    if (status === 200 || status === 206) {
      body.cancel()
      throw new ChangedError(`"${file.path}" has changed`)
    }
    const error = await refuse(`Reading "${file.path}"`, response)
    throw status === 404 || status === 416 ? new ChangedError(error.message) : error
  }

  read(path: string, offset: number, signal: AbortSignal): Promise<Content> {
    const ref = this.#blobOf(path)
    return this.open({ kind: 'file', path, size: undefined, validator: undefined, ref }, offset, signal)
  }

  async write(path: string, upload: Upload, signal: AbortSignal): Promise<void> {
    const put = async ({ query, headers, size, body }: AzurePut, signal: AbortSignal) => {
      const all = { ...headers, 'content-length': String(size) }
      const request = { method: 'PUT', blob: this.#blobOf(path), query, headers: all, body }
      const response = await this.#send(request, signal)
      if (response.status !== 201) throw await refuse(`Writing "${path}"`, response)
      await response.body.bytes()
    }
    const parts = splitIntoParts(upload.size, this.#partRule)
    if (parts) return uploadInBlocks({ upload, parts, put }, signal)
    const { size } = upload
    await put({ query: {}, headers: { 'x-ms-blob-type': 'BlockBlob' }, size, body: await upload.open() }, signal)
  }

  close(): Promise<void> {
    return this.#http.close()
  }

  #blobOf(path: string): string {
    return this.#folder === '' ? path : `${this.#folder}/${path}`
  }

  async #send(
    { method, blob = '', query = {}, headers = {}, body }: BlobRequest,
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    const { origin, pathname } = new URL(this.#settings.endpoint)
    const top = `${pathname.replace(/\/$/, '')}/${encodePath(this.#settings.container)}`
    const request = {
      method,
      path: blob === '' ? top : `${top}/${encodePath(blob)}`,
      query,
      headers: { 'x-ms-date': new Date().toUTCString(), 'x-ms-version': apiVersion, ...headers },
    }
    const proof = await this.#authorize(request, signal)
    const search = [new URLSearchParams(query).toString().replaceAll('+', '%20'), proof.query]
      .filter(part => part !== '')
      .join('&')
    const path = search === '' ? request.path : `${request.path}?${search}`
    return this.#http.send({ method, origin, path, headers: { ...request.headers, ...proof.headers }, body }, signal)
  }

  /** An empty listing is often a path that names a file. */
  async #refuseFile(signal: AbortSignal): Promise<void> {
    if (this.#folder === '') return
    const response = await this.#send({ method: 'HEAD', blob: this.#folder }, signal)
    response.body.cancel()
    if (response.status === 200 && response.header('x-ms-meta-hdi_isfolder') === '')
      throw new StorageError('It is a file, not a folder')
  }
}

interface BlobRequest {
  readonly method: string
  /** Not encoded; '' is the container itself. */
  readonly blob?: string
  readonly query?: Record<string, string>
  readonly headers?: Record<string, string>
  readonly body?: HttpRequest['body']
}

interface ListedBlob {
  readonly name: string
  readonly size: number
  readonly tag: string
  /** Data Lake's folders, and the empty blobs that stand for them. */
  readonly isFolder: boolean
}

function* readBlobs(xml: string): Generator<ListedBlob> {
  for (const [, blob = ''] of xml.matchAll(/<Blob>(.*?)<\/Blob>/gs)) {
    const name = /<Name( Encoded="true")?>([^<]*)<\/Name>/.exec(blob)
    const plain = unescapeXml(name?.[2] ?? '')
    yield {
      name: name?.[1] ? decodeURIComponent(plain) : plain,
      size: Number(/<Content-Length>(\d+)</.exec(blob)?.[1] ?? 0),
      tag: bareTag(unescapeXml(/<Etag>([^<]*)</.exec(blob)?.[1] ?? '')),
      isFolder: /<hdi_isfolder>true</i.test(blob) || /<ResourceType>directory</i.test(blob),
    }
  }
}

function entryOf({ name, size, tag, isFolder }: ListedBlob, prefix: string): readonly Entry[] {
  const path = name.slice(prefix.length)
  if (path === '') return []
  if (size === 0 && (isFolder || path.endsWith('/'))) return [{ kind: 'folder', path: path.replace(/\/$/, '') }]
  return [{ kind: 'file', path, size, validator: tag || undefined, ref: name }]
}

/** Listings give ETags without quotes, answers with them. */
function bareTag(tag: string): string {
  return tag.replaceAll('"', '')
}

/** Only the first line: the others hold ids and, for a wrong key, what was signed. */
function refuse(what: string, response: HttpResponse): Promise<Error> {
  return refusal(what, response, body =>
    [elementText(body, 'Code') || response.header('x-ms-error-code'), elementText(body, 'Message').split('\n')[0]]
      .filter(Boolean)
      .join(': '),
  )
}
