// A bucket of its own on a server that speaks like Google Cloud Storage, for tests.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { HttpClient } from '../../src/storage/http.ts'
import type { StorageBlock } from '../../src/storage/registry.ts'
import { storageServer } from '../support/storage-servers.ts'
import type { ContractPlace, Flaw } from './contract.ts'
import { makeContext } from './support.ts'

const signal = new AbortController().signal

export interface GcsPlace {
  readonly endpoint: string
  readonly bucket: string
  /** Content of the key file. */
  readonly key: string
  readonly keyFile: string
}

/** Behind the nginx that wants a token, straight at the emulator, or at the one that is quick with many objects. */
type GcsDoor = 'guarded' | 'open' | 'files'

export async function openGcsPlace(
  door: GcsDoor,
  blockOf: (place: GcsPlace) => StorageBlock,
  environmentOf: (place: GcsPlace) => Record<string, string> = () => ({}),
): Promise<ContractPlace> {
  const server = storageServer('gcs')
  const own = (door === 'files' ? server.endpoint_files : server.endpoint) ?? ''
  const endpoint = (door === 'guarded' ? server.endpoint_auth : own) ?? ''
  const keyFile = server.service_account_file ?? ''
  const made: GcsPlace = {
    endpoint,
    bucket: `test-${randomBytes(6).toString('hex')}`,
    key: readFileSync(keyFile, 'utf8'),
    keyFile,
  }
  const http = new HttpClient({ connections: 4 }, makeContext())
  const post = async (path: string, body: string | Uint8Array, type: string) => {
    const request = { method: 'POST', origin: own, path, headers: { 'content-type': type }, body }
    const response = await http.send(request, signal)
    assert.equal(response.status, 200, await response.body.text())
  }
  await post('/storage/v1/b?project=rigel', JSON.stringify({ name: made.bucket }), 'application/json')
  const { hostname, port } = new URL(endpoint)
  let environment = environmentOf(made)
  return {
    address: { host: hostname, port: Number(port) },
    get environment() {
      return environment
    },
    block(at, flaw) {
      const place = flawed(at ? { ...made, endpoint: `http://${at.host}:${at.port}` } : made, flaw)
      environment = environmentOf(place)
      return blockOf(place)
    },
    put: (path, bytes) =>
      post(
        `/upload/storage/v1/b/${made.bucket}/o?uploadType=media&name=${encodeURIComponent(`flows/${path}`)}`,
        bytes,
        'application/octet-stream',
      ),
    [Symbol.asyncDispose]: () => http.close(),
  }
}

function flawed(place: GcsPlace, flaw: Flaw | undefined): GcsPlace {
  switch (flaw) {
    case 'no server':
      return { ...place, endpoint: 'http://127.0.0.1:9' }
    case 'missing bucket':
      return { ...place, bucket: 'test-is-not-there' }
    case 'wrong secret':
      return { ...place, key: place.key.replaceAll('/token"', '/somewhere-else"') }
    case undefined:
      return place
  }
}
