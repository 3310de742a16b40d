// A real HTTP server that answers the requests for one S3 bucket which fetching needs: listing, reading, reading on.
//
// For tests of what stands above the drivers, which need every request counted and answers held back. How well it plays S3
// is the drivers' own tests' business, with real ones.

import { hash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { StorageBlock } from '../../src/storage/registry.ts'
import { listen } from '../support/listen.ts'

export interface ObjectServer extends AsyncDisposable {
  /** Key to content; change it at will. */
  readonly objects: Map<string, Buffer>
  /** `LIST`, or the key that was read, in the order of arrival. */
  readonly requests: string[]
  /** Requests that have arrived and are still held back. */
  readonly held: number
  /** How long each answer waits; or until `release`. */
  delayMs: number | 'held'
  release(): void
  /** So many of the next answers break off in the middle, and to go on in the middle is not offered meanwhile. */
  cuts: number
  /** Words with which files are refused. */
  refusal: string | undefined
  /** The folder of the bucket that is fetched. */
  block(folder?: string): StorageBlock
}

export const objectServerSecret = 'secret-of-the-object-server'

export async function startObjectServer(files: Readonly<Record<string, string | Buffer>>): Promise<ObjectServer> {
  const objects = new Map(Object.entries(files).map(([key, content]) => [key, Buffer.from(content)]))
  const requests: string[] = []
  const held = new Set<() => void>()
  const state: { delayMs: number | 'held' } & Faults = { delayMs: 0, cuts: 0, refusal: undefined }

  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://bucket')
    const key = decodeURIComponent(url.pathname.replace(/^\/bucket\//, ''))
    const prefix = url.searchParams.get('prefix')
    if (request.method === 'GET') requests.push(prefix === null ? key : 'LIST')
    const answer = () => {
      held.delete(answer)
      if (prefix !== null) sendListing(response, objects, prefix)
      else sendObject(response, objects.get(key), request.headers.range ?? '', state)
    }
    if (state.delayMs === 'held') held.add(answer)
    else setTimeout(answer, state.delayMs)
  })
  const { port } = await listen(server)
  const endpoint = `http://127.0.0.1:${port}`

  return {
    objects,
    requests,
    get held() {
      return held.size
    },
    get delayMs() {
      return state.delayMs
    },
    set delayMs(value) {
      state.delayMs = value
    },
    get cuts() {
      return state.cuts
    },
    set cuts(value) {
      state.cuts = value
    },
    get refusal() {
      return state.refusal
    },
    set refusal(value) {
      state.refusal = value
    },
    release() {
      state.delayMs = 0
      for (const answer of held) answer()
    },
    block: (folder = '') => ({
      slug: 's3-bucket',
      data: {
        bucket_name: 'bucket',
        bucket_folder: folder,
        credentials: {
          minio_root_user: 'user',
          minio_root_password: objectServerSecret,
          aws_client_parameters: { endpoint_url: endpoint },
        },
      },
    }),
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

function sendListing(response: ServerResponse, objects: ReadonlyMap<string, Buffer>, prefix: string): void {
  const entries = [...objects]
    .filter(([key]) => key.startsWith(prefix))
    .map(
      ([key, content]) =>
        `<Contents><Key>${encodeURIComponent(key)}</Key><ETag>${tagOf(content)}</ETag><Size>${content.length}</Size></Contents>`,
    )
  response.end(`<ListBucketResult><EncodingType>url</EncodingType>${entries.join('')}</ListBucketResult>`)
}

interface Faults {
  cuts: number
  refusal: string | undefined
}

function sendObject(response: ServerResponse, content: Buffer | undefined, range: string, faults: Faults): void {
  if (faults.refusal !== undefined) {
    response.writeHead(403).end(`<Error><Code>AccessDenied</Code><Message>${faults.refusal}</Message></Error>`)
    return
  }
  if (!content) {
    response.writeHead(404).end('<Error><Code>NoSuchKey</Code></Error>')
    return
  }
  if (faults.cuts > 0 && content.length > 1) {
    faults.cuts -= 1
    response.writeHead(200, { etag: tagOf(content), 'content-length': content.length })
    response.write(content.subarray(0, content.length - 1), () => response.destroy())
    return
  }
  const offset = Number(/^bytes=(\d+)-$/.exec(range)?.[1] ?? 0)
  const body = content.subarray(offset)
  response.writeHead(range === '' ? 200 : 206, { etag: tagOf(content), 'content-length': body.length }).end(body)
}

function tagOf(content: Buffer): string {
  return `"${hash('md5', content)}"`
}
