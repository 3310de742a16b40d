import assert from 'node:assert/strict'
import test from 'node:test'
import { openRemote } from '../../src/storage/registry.ts'
import { makeContext } from './support.ts'

const settings = { key: 'k', secret: 's', endpoint_url: 'http://127.0.0.1:9' }

async function placeOf(basepath: string, from?: string): Promise<string> {
  const remote = await openRemote({ slug: 'remote-file-system', data: { basepath, settings } }, makeContext())
  return remote.folder(from).place
}

for (const [basepath, from, place] of [
  ['s3://bucket/base', undefined, 's3://bucket/base at 127.0.0.1:9'],
  ['s3://bucket/base/', '', 's3://bucket/base at 127.0.0.1:9'],
  ['s3a://bucket', 'a/b', 's3://bucket/a/b at 127.0.0.1:9'],
  ['S3://bucket/base', '/sub//./x/', 's3://bucket/base/sub/x at 127.0.0.1:9'],
  ['s3://bucket/base', 's3://bucket/base/sub', 's3://bucket/base/sub at 127.0.0.1:9'],
  ['s3://bucket/a b%20#?c', 'd*[1]', 's3://bucket/a b%20#?c/d*[1] at 127.0.0.1:9'],
] as const) {
  test(`${basepath} with path ${from} is ${place}`, async () => assert.equal(await placeOf(basepath, from), place))
}

for (const from of ['../x', 's3://other/base/x', 's3://bucket/base-old/x', 'gs://bucket/base/x']) {
  test(`the path ${from} is refused, for it leads out of s3://bucket/base`, async () => {
    await assert.rejects(placeOf('s3://bucket/base', from), {
      name: 'StorageError',
      message: /leads out of the base path/,
    })
  })
}

for (const [basepath, message] of [
  ['memory://bucket/base', /"memory": it lives in the process that wrote it/],
  ['file:///srv/flows', /"file".*local-file-system/],
  ['gopher://host/base', /"gopher": there is no driver for it/],
  ['/srv/flows', /"basepath" is not a URL/],
  ['s3://', /"basepath" is not a URL/],
] as const) {
  test(`the base path ${basepath} is refused with the reason`, async () => {
    await assert.rejects(placeOf(basepath), { name: 'StorageError', message })
  })
}
