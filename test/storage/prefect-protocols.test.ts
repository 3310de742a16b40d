// The same trees as Prefect 2.20.25's own blocks bring by git, SMB, FTP and WebHDFS, where Prefect is sound.

import { chmod, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import { after, before, describe, test } from 'node:test'
import { needs } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'
import { makeDataFolder } from './data-folder.ts'
import { gitEnvironment, makeRepository } from './git-server.ts'
import { type PrefectBlocks, startPrefectBlocks } from './prefect-blocks.ts'
import { compare } from './prefect-compare.ts'

const files = {
  'flow.py': 'print("hello")\r\n',
  'pkg/__init__.py': '',
  'pkg/deep/er/mod.py': 'x = 1\n',
  'pkg2/other.py': 'y = 1\n',
  '.prefectignore': '*.py\n',
  '.hidden/.file': 'h',
  'data/ünï cödé.txt': 'names\n',
  "data/quo'te;(x)=[y]@z,~$&+1.txt": 'names\n',
  'large.bin': 'abcdefgh'.repeat(100_000),
}

describe("Prefect's own block", needs('prefect2storage'), () => {
  let prefect: PrefectBlocks
  before(async () => {
    prefect = await startPrefectBlocks()
  })
  after(() => prefect[Symbol.asyncDispose]())

  for (const from of [undefined, 'pkg']) {
    const what = from === undefined ? 'the whole' : `the folder "${from}"`

    test(`github brings the tree that Prefect's block brings: ${what}`, needs('git'), async t => {
      const repository = await makeRepository('private')
      const run = { mode: '100755', text: '#!/bin/sh\n' } as const
      const link = { mode: '120000', text: 'flow.py' } as const
      await repository.commit({ ...files, 'data/100%+1 #2?*.txt': 'names', 'pkg/run': run, link })
      const { url_tls: url, token } = storageServer('git')
      const data = { repository: `${url}${repository.name}`, access_token: token, include_git_objects: false }
      const place = { block: () => ({ slug: 'github', data }), environment: gitEnvironment() }
      t.diagnostic(`differences that are ignored: ${await compare(prefect, place, { block: 'github', from })}`)
    })
  }

  for (const server of ['smb', 'ftp'] as const) {
    test(`${server} brings the tree that Prefect's block brings`, needs(server), async t => {
      const { host = '', port = '', password = '', data = '' } = storageServer(server)
      await using folder = await makeDataFolder(data)
      for (const [path, text] of Object.entries(files)) await folder.put(path, text)
      await mkdir(join(folder.path, 'flows/pkg/empty'))
      await chmod(join(folder.path, 'flows/pkg/__init__.py'), 0o755)
      const path = `${folder.name}/flows`
      const settings = { host, port: Number(port), username: 'rigel', password }
      const block =
        server === 'smb'
          ? {
              slug: 'smb',
              data: {
                share_path: `/flows/${path}`,
                smb_host: host,
                smb_port: Number(port),
                smb_username: 'rigel',
                smb_password: password,
              },
            }
          : { slug: 'remote-file-system', data: { basepath: `ftp://${host}/${path}`, settings } }
      const place = { block: () => block, environment: { PATH: process.env.PATH } }
      t.diagnostic(`differences that are ignored: ${await compare(prefect, place, { block: server, from: undefined })}`)
    })
  }
})
