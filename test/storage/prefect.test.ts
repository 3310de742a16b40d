// The same trees as Prefect 2.20.25's own blocks bring from the same real servers, where Prefect is sound.

import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { makeDirectory } from '../support/directory.ts'
import { needs, type Requirement } from '../support/requires.ts'
import { connectionString, openAzurePlace } from './azure-server.ts'
import type { ContractPlace } from './contract.ts'
import { unfetchable } from './differences.ts'
import { openGcsPlace } from './gcs-server.ts'
import { type PrefectBlocks, startPrefectBlocks } from './prefect-blocks.ts'
import { compare } from './prefect-compare.ts'
import { openS3Place, s3BucketBlock } from './s3-server.ts'
import { writeTree } from './support.ts'

const files: Readonly<Record<string, string | Uint8Array>> = {
  'flow.py': 'print("hello")\r\n',
  'pkg/__init__.py': '',
  'pkg/deep/er/mod.py': 'x = 1\n',
  'pkg2/other.py': 'y = 1\n',
  '.prefectignore': '*.py\n',
  '.hidden/.file': 'h',
  'data/ünï cödé.txt': 'names\n',
  'data/100%+1 #2 & more.txt': 'names\n',
  "data/quo'te;(x)=[y]@z,~$.txt": 'names\n',
  'data/new\nline.txt': 'names\n',
  'data/back\\slash.txt': 'names\n',
  'data/star*question?.txt': 'names\n',
  'binary.bin': Uint8Array.from({ length: 70_000 }, (_, at) => (at * 7) % 256),
  'large.bin': 'abcdefgh'.repeat(100_000),
  'folder/': '',
}

interface Comparison {
  readonly block: string
  readonly server: Requirement
  readonly open: () => Promise<ContractPlace>
}

const comparisons: readonly Comparison[] = [
  {
    block: 's3://',
    server: 's3',
    open: () =>
      openS3Place('s3', place => ({
        slug: 'remote-file-system',
        data: {
          basepath: `s3://${place.bucket}/flows`,
          settings: {
            key: place.accessKeyId,
            secret: place.secretAccessKey,
            client_kwargs: { endpoint_url: place.endpoint },
          },
        },
      })),
  },
  {
    block: 's3-bucket',
    server: 's3',
    open: () => openS3Place('s3', s3BucketBlock),
  },
  {
    block: 'azure',
    server: 'azure',
    open: () =>
      openAzurePlace(place => ({
        slug: 'azure',
        data: { bucket_path: `${place.container}/flows`, azure_storage_connection_string: connectionString(place) },
      })),
  },
  {
    block: 'gs://',
    server: 'gcs',
    open: () =>
      openGcsPlace('open', ({ bucket, endpoint }) => ({
        slug: 'remote-file-system',
        data: { basepath: `gs://${bucket}/flows`, settings: { token: 'anon', endpoint_url: endpoint } },
      })),
  },
]

describe("Prefect's own block", needs('prefect2storage'), () => {
  let prefect: PrefectBlocks
  before(async () => {
    prefect = await startPrefectBlocks()
  })
  after(() => prefect[Symbol.asyncDispose]())

  for (const { block, server, open } of comparisons) {
    for (const from of [undefined, 'pkg']) {
      const what = from === undefined ? 'the whole base path' : `the folder "${from}" below it`
      test(`${block} brings the tree that Prefect's block brings: ${what}`, needs(server), async t => {
        await using place = await open()
        for (const [path, content] of Object.entries(files))
          if (unfetchable[block]?.[path] === undefined) await place.put(path, content)
        t.diagnostic(`differences that are ignored: ${await compare(prefect, place, { block, from })}`)
      })
    }
  }

  test("local-file-system brings the tree that Prefect's block brings", async t => {
    await using directory = await makeDirectory()
    const base = join(directory.path, 'base')
    await writeTree(base, {
      'flow.py': 'x',
      'bin/run': { mode: 0o755, text: '#!/bin/sh\n' },
      'bin/secret': { mode: 0o600, text: 's' },
      'bin/closed': { mode: 0o444, text: 'c' },
      'pkg/mod.py': 'm',
      'pkg/__pycache__/mod.pyc': 'no',
      'näme with "quotes"\n': '',
      empty: null,
      '.prefectignore': '__pycache__\n*.log\n',
      'a.log': 'no',
      'build/a.log': 'no',
      link: { link: 'pkg/mod.py' },
    })
    const block = { slug: 'local-file-system', data: { basepath: base } }
    const ignored = await compare(prefect, { block: () => block }, { block: block.slug, from: undefined })
    t.diagnostic(`differences that are ignored: ${ignored}`)
  })
})
