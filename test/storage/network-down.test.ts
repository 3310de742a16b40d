// A machine whose network is down, in a namespace of its own: storage by helper programs and by libraries must say the same.

import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import type { StorageBlock } from '../../src/storage/registry.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { run } from '../support/run.ts'

const main = fileURLToPath(new URL('./failed-fetch.ts', import.meta.url))

const ways: Readonly<Record<string, (host: string) => StorageBlock>> = {
  'http://': host => remote(`http://${host}/flows`),
  'git by https': host => ({ slug: 'github', data: { repository: `https://${host}/flows.git` } }),
  'git by ssh': host => ({ slug: 'github', data: { repository: `ssh://git@${host}/flows.git` } }),
  'git by its own protocol': host => ({ slug: 'github', data: { repository: `git://${host}/flows.git` } }),
  'sftp://': host => remote(`sftp://${host}/flows`, { username: 'u', password: 'p' }),
  'ftp://': host => remote(`ftp://${host}/flows`),
  smb: host => ({ slug: 'smb', data: { smb_host: host, share_path: '/flows' } }),
}

function remote(basepath: string, settings: Readonly<Record<string, unknown>> = {}): StorageBlock {
  return { slug: 'remote-file-system', data: { basepath, settings } }
}

interface Failure {
  readonly name: string
  readonly blame: string
  readonly message: string
  readonly seconds: number
}

/** Fetches where no network is; names are asked of whom `hosts` says, as in nsswitch.conf. */
async function failToFetch(block: StorageBlock, hosts: 'dns' | 'files'): Promise<Failure> {
  await using directory = await makeDirectory()
  const names = join(directory.path, 'nsswitch.conf')
  await writeFile(names, `hosts: files ${hosts}\npasswd: files\n`)
  const to = join(directory.path, 'to')
  await mkdir(to)
  const script = `mount --bind ${names} /etc/nsswitch.conf && exec "$@"`
  const words = ['-rnm', 'sh', '-c', script, '-', process.execPath, main, JSON.stringify({ block, to })]
  const { stdout, stderr } = await run('unshare', words)
  assert.notEqual(stdout, '', stderr)
  // Written by failed-fetch.ts.
  const failure: Failure = JSON.parse(stdout)
  return failure
}

for (const [name, blockOf] of Object.entries(ways)) {
  const options = needs('root', ...(name === 'smb' ? (['smb'] as const) : []))

  test(`${name}: without a network it is tried again, and the run is given back`, options, async () => {
    const hosts = ['192.0.2.1', 'files.example']
    for (const failure of await Promise.all(hosts.map(host => failToFetch(blockOf(host), 'dns')))) {
      assert.equal(failure.blame, 'host', failure.message)
      assert.match(failure.message, /ENETUNREACH|EAI_AGAIN/)
      assert.ok(failure.seconds > 1.5, `it was tried for ${failure.seconds} s`)
    }
  })

  test(`${name}: a host that does not exist is the run's own fault`, options, async () => {
    const failure = await failToFetch(blockOf('files.example'), 'files')
    assert.equal(failure.blame, 'run', failure.message)
    assert.match(failure.message, /ENOTFOUND files\.example/)
  })
}
