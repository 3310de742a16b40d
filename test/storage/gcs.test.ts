import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import test from 'node:test'
import { createServer } from 'node:tls'
import { makeAuthority } from '../support/certificates.ts'
import { makeDirectory } from '../support/directory.ts'
import { listen } from '../support/listen.ts'
import { needs } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'
import { type Contract, testContract } from './contract.ts'
import { openGcsPlace } from './gcs-server.ts'
import { fetchBlock } from './support.ts'

const contract: Omit<Contract, 'name' | 'open'> = {
  requirement: 'gcs',
  secret: () => privateKey(),
  checksCredentials: true,
  hasBucket: true,
  takesHostileNames: true,
  resumes: true,
  reuses: true,
  writes: true,
}

/** The middle of the key, as it stands in the file. */
function privateKey(): string {
  return readFileSync(storageServer('gcs').service_account_file ?? '', 'utf8').split('\\n')[3] ?? 'none'
}

testContract({
  ...contract,
  name: 'gcs with a service account',
  open: () =>
    openGcsPlace(
      'guarded',
      ({ bucket, key }) => ({ slug: 'gcs', data: { bucket_path: `${bucket}/flows`, service_account_info: key } }),
      ({ endpoint }) => ({ STORAGE_EMULATOR_HOST: endpoint }),
    ),
})

testContract({
  ...contract,
  name: 'gcs-bucket with GOOGLE_APPLICATION_CREDENTIALS',
  checksCredentials: false,
  open: () =>
    openGcsPlace(
      'guarded',
      ({ bucket }) => ({
        slug: 'gcs-bucket',
        data: { bucket, gcp_credentials: { service_account_info: null }, bucket_folder: 'flows/' },
      }),
      ({ endpoint, keyFile }) => ({ STORAGE_EMULATOR_HOST: endpoint, GOOGLE_APPLICATION_CREDENTIALS: keyFile }),
    ),
})

testContract({
  ...contract,
  name: 'remote-file-system gs:// without credentials',
  checksCredentials: false,
  open: () =>
    openGcsPlace('open', ({ bucket, endpoint }) => ({
      slug: 'remote-file-system',
      data: { basepath: `gs://${bucket}/flows`, settings: { token: 'anon', endpoint_url: endpoint } },
    })),
})

test('a server under an authority of one’s own is believed by SSL_CERT_FILE alone', needs('gcs'), async () => {
  await using directory = await makeDirectory()
  const authority = makeAuthority()
  const file = join(directory.path, 'authority.pem')
  await writeFile(file, authority.certificate)
  let endpoint = ''
  await using place = await openGcsPlace('open', ({ bucket }) => ({
    slug: 'remote-file-system',
    data: { basepath: `gs://${bucket}/flows`, settings: { token: 'anon', endpoint_url: endpoint } },
  }))
  await place.put('flow.py', 'f')
  const { certificate, key } = authority.issue()
  const server = createServer({ cert: certificate, key }, socket => {
    const inner = connect(place.address)
    inner.on('error', () => socket.destroy())
    socket.on('error', () => inner.destroy())
    socket.pipe(inner).pipe(socket)
  })
  try {
    endpoint = `https://127.0.0.1:${(await listen(server)).port}`
    await assert.rejects(fetchBlock(place.block()), /certificate/)
    assert.deepEqual(await fetchBlock(place.block(), { environment: { SSL_CERT_FILE: file } }), { 'flow.py': 'f' })
  } finally {
    server.close()
  }
})
