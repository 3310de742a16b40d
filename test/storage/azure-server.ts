// A container of its own on Azurite, for tests.

import assert from 'node:assert/strict'
import { createHmac, randomBytes } from 'node:crypto'
import { openLogin } from '../../src/storage/azure-login.ts'
import { HttpClient } from '../../src/storage/http.ts'
import type { StorageBlock } from '../../src/storage/registry.ts'
import { encodePath } from '../../src/storage/url-encoding.ts'
import { storageServer } from '../support/storage-servers.ts'
import { principal } from './azure-tenant.ts'
import type { ContractPlace, Flaw } from './contract.ts'
import { makeContext } from './support.ts'

const signal = new AbortController().signal

export interface AzurePlace {
  readonly endpoint: string
  readonly account: string
  readonly key: string
  /** Of the service principal. */
  readonly secret: string
  readonly container: string
}

/**
 * The place of a contract: how a block of some type names this container is said by `blockOf`. Tokens are only taken by the
 * server that speaks TLS.
 */
export async function openAzurePlace(
  blockOf: (place: AzurePlace) => StorageBlock,
  server: 'plain' | 'tls' = 'plain',
): Promise<ContractPlace> {
  const {
    endpoint: plain = '',
    endpoint_tls: tls = '',
    account = '',
    key = '',
    ca_file: caFile,
  } = storageServer('azure')
  const endpoint = server === 'tls' ? tls : plain
  const container = `test-${randomBytes(6).toString('hex')}`
  const made = { endpoint, account, key, secret: principal.client_secret, container }
  const { origin, protocol, pathname, hostname, port } = new URL(endpoint)
  const http = new HttpClient({ connections: 4, caFile }, makeContext())
  const authorize = openLogin({ kind: 'shared key', account, key }, http, {})
  const put = async (
    path: string,
    query: Record<string, string>,
    body: string | Uint8Array,
    own: Record<string, string>,
  ) => {
    const headers = {
      'x-ms-date': new Date().toUTCString(),
      'x-ms-version': '2021-08-06',
      ...own,
      'content-length': String(Buffer.byteLength(body)),
    }
    const request = { method: 'PUT', path: `${pathname}/${made.container}${path}`, query, headers }
    const proof = await authorize(request, signal)
    const search = new URLSearchParams(query).toString()
    const target = search === '' ? request.path : `${request.path}?${search}`
    const response = await http.send(
      { method: 'PUT', origin, path: target, headers: { ...headers, ...proof.headers }, body },
      signal,
    )
    assert.equal(response.status, 201, await response.body.text())
  }
  await put('', { restype: 'container' }, '', {})
  return {
    address: { host: hostname, port: Number(port) },
    block: (at, flaw) =>
      blockOf(flawed(at ? { ...made, endpoint: `${protocol}//${at.host}:${at.port}${pathname}` } : made, flaw)),
    put: (path, bytes) => put(`/${encodePath(`flows/${path}`)}`, {}, bytes, { 'x-ms-blob-type': 'BlockBlob' }),
    [Symbol.asyncDispose]: () => http.close(),
  }
}

function flawed(place: AzurePlace, flaw: Flaw | undefined): AzurePlace {
  switch (flaw) {
    case 'no server':
      return { ...place, endpoint: `http://127.0.0.1:9/${place.account}` }
    case 'missing bucket':
      return { ...place, container: 'test-is-not-there' }
    case 'wrong secret':
      return { ...place, key: Buffer.from(`x${place.key}`).toString('base64'), secret: `${place.secret}x` }
    case undefined:
      return place
  }
}

export function connectionString({ endpoint, account, key }: AzurePlace): string {
  return `DefaultEndpointsProtocol=http;AccountName=${account};AccountKey=${key};BlobEndpoint=${endpoint};`
}

/** An account SAS for reading, as Microsoft's "Create an account SAS" says. */
export function makeSas({ account, key }: AzurePlace): string {
  // Rounded to hours, for another SAS is another source to the cache.
  const hourMs = 3_600_000
  const expiry = new Date((Math.floor(Date.now() / hourMs) + 2) * hourMs).toISOString().replace(/\.\d+/, '')
  const fields = [account, 'rl', 'b', 'sco', '', expiry, '', '', '2020-08-04', '']
  const signature = createHmac('sha256', Buffer.from(key, 'base64')).update(fields.join('\n')).digest('base64')
  return new URLSearchParams({ sv: '2020-08-04', ss: 'b', srt: 'sco', sp: 'rl', se: expiry, sig: signature }).toString()
}
