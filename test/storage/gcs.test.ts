import { readFileSync } from 'node:fs'
import { storageServer } from '../support/storage-servers.ts'
import { type Contract, testContract } from './contract.ts'
import { openGcsPlace } from './gcs-server.ts'

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
