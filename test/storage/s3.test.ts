import assert from 'node:assert/strict'
import test from 'node:test'
import { openWritableStorage, type StorageBlock } from '../../src/storage/registry.ts'
import { startForwardProxy } from '../support/forward-proxy.ts'
import { needs } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { testContract } from './contract.ts'
import { makeBucket, openS3Place, type S3Place, s3BucketBlock } from './s3-server.ts'
import { fetchBlock, makeContext } from './support.ts'

const secret = () => storageServer('s3').secret_access_key ?? ''

const plain = (place: S3Place): StorageBlock => ({
  slug: 's3',
  data: {
    bucket_path: `${place.bucket}/flows`,
    aws_access_key_id: place.accessKeyId,
    aws_secret_access_key: place.secretAccessKey,
  },
})

const url = (place: S3Place): StorageBlock => ({
  slug: 'remote-file-system',
  data: {
    basepath: `s3://${place.bucket}/flows/`,
    settings: {
      key: place.accessKeyId,
      secret: place.secretAccessKey,
      client_kwargs: { endpoint_url: place.endpoint },
    },
  },
})

const contract = {
  requirement: 's3',
  secret,
  checksCredentials: true,
  hasBucket: true,
  takesHostileNames: false,
  resumes: true,
  reuses: true,
  writes: true,
} as const

testContract({ ...contract, name: 's3-bucket on MinIO', open: () => openS3Place('s3', s3BucketBlock) })

testContract({
  ...contract,
  name: 's3 on MinIO, by AWS_ENDPOINT_URL',
  open: () => openS3Place('s3', plain, ({ endpoint }) => ({ AWS_ENDPOINT_URL: endpoint })),
})

testContract({ ...contract, name: 'remote-file-system s3:// on MinIO', open: () => openS3Place('s3', url) })

testContract({
  ...contract,
  name: 's3 on moto',
  requirement: 's3any',
  secret: () => 'nothing-secret-here',
  checksCredentials: false,
  takesHostileNames: true,
  open: () => openS3Place('s3any', plain, ({ endpoint }) => ({ AWS_ENDPOINT_URL: endpoint })),
})

test(
  'a zero-byte key that ends with a slash is an empty folder for s3, and nothing for s3-bucket',
  needs('s3any'),
  async () => {
    await using place = await makeBucket('s3any')
    await place.put('flows/', '')
    await place.put('flows/empty/', '')
    await place.put('flows/a.py', 'a')
    assert.deepEqual(await fetchBlock(plain(place), { environment: { AWS_ENDPOINT_URL: place.endpoint } }), {
      'a.py': 'a',
      empty: null,
    })
    assert.deepEqual(await fetchBlock(s3BucketBlock(place)), { 'a.py': 'a' })
  },
)

test('a bucket with more objects than one page of a listing arrives whole', needs('s3'), async () => {
  await using place = await makeBucket('s3')
  const names = Array.from({ length: 1100 }, (_, at) => `f${at}`)
  for (let at = 0; at < names.length; at += 50) {
    await Promise.all(names.slice(at, at + 50).map(name => place.put(`flows/${name}`, name)))
  }
  assert.deepEqual(Object.keys(await fetchBlock(s3BucketBlock(place))), names.toSorted())
})

test('a server that does not know encoding-type means the keys that it lists as they stand', needs('s3'), async () => {
  await using place = await makeBucket('s3')
  const tree = { 'a+b.py': 'plus', 'c%20d.py': 'percent', '100%.py': 'no code', 'e&f.py': 'entity', 'g h.py': 'blank' }
  for (const [name, text] of Object.entries(tree)) await place.put(`flows/${name}`, text)
  let changed = 0
  const change = (piece: Buffer) => {
    const text = piece.toString('utf8').replace(/<EncodingType>url<\/EncodingType>/, said => {
      changed++
      return ' '.repeat(said.length)
    })
    // Blanks make up for what is shorter: the length of the answer has been said.
    const plain = text.replace(/<Key>(.*?)<\/Key>/g, (said, key: string) =>
      `<Key>${decodeURIComponent(key.replaceAll('+', ' ')).replaceAll('&', '&amp;')}</Key>`.padEnd(said.length),
    )
    return Buffer.from(plain)
  }
  const { hostname, port } = new URL(place.endpoint)
  await using proxy = await startTcpProxy({ host: hostname, port: Number(port), change })
  const block = s3BucketBlock({ ...place, endpoint: `http://127.0.0.1:${proxy.port}` })
  assert.deepEqual(await fetchBlock(block), tree)
  assert.equal(changed, 1)
})

const virtual = { s3: { addressing_style: 'virtual' } }

for (const [what, blockOf] of [
  [
    's3-bucket',
    ({ bucket, endpoint, accessKeyId, secretAccessKey }: S3Place): StorageBlock => ({
      slug: 's3-bucket',
      data: {
        bucket_name: bucket,
        bucket_folder: 'flows',
        credentials: {
          aws_access_key_id: accessKeyId,
          aws_secret_access_key: secretAccessKey,
          aws_client_parameters: { endpoint_url: endpoint, config: virtual },
        },
      },
    }),
  ],
  [
    's3://',
    ({ bucket, endpoint, accessKeyId, secretAccessKey }: S3Place): StorageBlock => ({
      slug: 'remote-file-system',
      data: {
        basepath: `s3://${bucket}/flows`,
        settings: { key: accessKeyId, secret: secretAccessKey, endpoint_url: endpoint, config_kwargs: virtual },
      },
    }),
  ],
] as const) {
  test(`${what} reaches a bucket by its host name where the addressing style is virtual`, needs('s3'), async () => {
    await using place = await makeBucket('s3')
    // No name service has to know the names below localhost.
    await using proxy = await startForwardProxy({ route: ({ port }) => ({ host: '127.0.0.1', port }) })
    const { port } = new URL(place.endpoint)
    const block = blockOf({ ...place, endpoint: `http://localhost:${port}` })
    await place.put('flows/pkg/a b.py', 'a')
    const proxies = { http: proxy.url }
    assert.deepEqual(await fetchBlock(block, { proxies }), { 'pkg/a b.py': 'a' })
    const storage = await openWritableStorage(block, makeContext({ proxies }))
    const signal = new AbortController().signal
    await storage.writePath('pkg/ünï.py', Buffer.from('b'), signal)
    assert.equal(Buffer.from(await storage.readPath('pkg/ünï.py', signal)).toString(), 'b')
    assert.deepEqual(await fetchBlock(s3BucketBlock(place)), { 'pkg/a b.py': 'a', 'pkg/ünï.py': 'b' })
    for (const request of proxy.requests) assert.ok(request.includes(`${place.bucket}.localhost:${port}`), request)
  })
}

test('an access key of which only one half is given is refused', async () => {
  const block = { slug: 's3', data: { bucket_path: 'b', aws_access_key_id: 'A' } }
  await assert.rejects(fetchBlock(block, { environment: { AWS_REGION: 'us-east-1' } }), {
    name: 'StorageError',
    message: /only the id is given/,
  })
})

test('a role that is to be assumed is refused, and not left out', async () => {
  const credentials = { aws_access_key_id: 'A', aws_secret_access_key: 'S', assume_role_arn: 'arn:aws:iam::1:role/x' }
  await assert.rejects(fetchBlock({ slug: 's3-bucket', data: { bucket_name: 'b', credentials } }), {
    name: 'StorageError',
    message: /"assume_role_arn" cannot be used: name a profile of ~\/\.aws/,
  })
})

test('a missing field is named', async () => {
  await assert.rejects(fetchBlock({ slug: 's3', data: {} }), {
    message: 'Storage block of type "s3": field "bucket_path" is missing',
  })
})
