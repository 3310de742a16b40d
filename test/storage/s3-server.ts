// A bucket of its own on a real S3 server, for tests.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import type { StorageBlock } from '../../src/storage/registry.ts'
import { S3Client } from '../../src/storage/s3-client.ts'
import { storageServer } from '../support/storage-servers.ts'
import type { ContractPlace, Flaw } from './contract.ts'
import { makeContext } from './support.ts'

const signal = new AbortController().signal

export interface S3Place {
  readonly bucket: string
  readonly endpoint: string
  readonly accessKeyId: string
  readonly secretAccessKey: string
  /** With the whole key. */
  put(key: string, bytes: string | Uint8Array): Promise<void>
}

export async function makeBucket(server: 's3' | 's3any'): Promise<S3Place & AsyncDisposable> {
  const {
    endpoint = '',
    access_key_id: accessKeyId = '',
    secret_access_key: secretAccessKey = '',
  } = storageServer(server)
  const bucket = `test-${randomBytes(6).toString('hex')}`
  const client = new S3Client(
    { bucket, base: '', endpoint, accessKeyId, secretAccessKey, folderMarkers: true },
    makeContext(),
  )
  const send = async (key: string, body?: string | Uint8Array) => {
    const response = await client.send({ method: 'PUT', key, body }, signal)
    assert.equal(response.status, 200, await response.body.text())
  }
  await send('')
  return { bucket, endpoint, accessKeyId, secretAccessKey, put: send, [Symbol.asyncDispose]: () => client.close() }
}

/** A block of Prefect's `s3-bucket` type that names the folder `flows` of this bucket. */
export function s3BucketBlock({ bucket, endpoint, accessKeyId, secretAccessKey }: S3Place): StorageBlock {
  const credentials = {
    minio_root_user: accessKeyId,
    minio_root_password: secretAccessKey,
    aws_client_parameters: { endpoint_url: endpoint },
  }
  return { slug: 's3-bucket', data: { bucket_name: bucket, bucket_folder: 'flows', credentials } }
}

/** The place of a contract: how a block of some type names this bucket is said by `blockOf`. */
export async function openS3Place(
  server: 's3' | 's3any',
  blockOf: (place: S3Place) => StorageBlock,
  environmentOf: (place: S3Place) => Record<string, string> = () => ({}),
): Promise<ContractPlace> {
  const made = await makeBucket(server)
  const { hostname, port } = new URL(made.endpoint)
  const flawed = (at: { host: string; port: number } | undefined, flaw: Flaw | undefined): S3Place => ({
    ...made,
    ...(at ? { endpoint: `http://${at.host}:${at.port}` } : {}),
    ...(flaw === 'no server' ? { endpoint: 'http://127.0.0.1:9' } : {}),
    ...(flaw === 'missing bucket' ? { bucket: 'test-is-not-there' } : {}),
    ...(flaw === 'wrong secret' ? { secretAccessKey: `${made.secretAccessKey}x` } : {}),
  })
  let environment = environmentOf(made)
  return {
    address: { host: hostname, port: Number(port) },
    get environment() {
      return environment
    },
    block(at, flaw) {
      environment = environmentOf(flawed(at, flaw))
      return blockOf(flawed(at, flaw))
    },
    put: (path, bytes) => made.put(`flows/${path}`, bytes),
    [Symbol.asyncDispose]: () => made[Symbol.asyncDispose](),
  }
}
