// Names and things that a disk can hold and that are not meant well, on the real servers of the two protocols that show them as they
// are: SFTP by its own packets, SMB by smbclient, which is given commands and prints lines. The tree arrives as it is, or the
// error names what is wrong; no command is carried out, nothing is left out, nothing waits for ever.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { chown, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { openStorage, openWritableStorage, type StorageBlock } from '../../src/storage/registry.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { run } from '../support/run.ts'
import { storageServer } from '../support/storage-servers.ts'
import { makeDataFolder } from './data-folder.ts'
import { makeContext, readTree, type Tree } from './support.ts'

/** What waits for ever is given up. */
const timeoutMs = 120_000
const environment = { PATH: process.env.PATH ?? '' }

interface Place extends AsyncDisposable {
  /** The folder that is fetched, on this machine. */
  readonly flows: string
  readonly block: StorageBlock
}

const servers = {
  async sftp(): Promise<Place> {
    const { host = '', port = '', username, password, data = '' } = storageServer('sftp')
    const folder = await makeDataFolder(data)
    const flows = join(folder.path, 'flows')
    await chown(flows, 20001, 20001)
    const settings = { port, username, password }
    return {
      flows,
      block: { slug: 'remote-file-system', data: { basepath: `sftp://${host}${flows}`, settings } },
      [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
    }
  },
  async smb(): Promise<Place> {
    const { host = '', port = '', username, password, data = '' } = storageServer('smb')
    const folder = await makeDataFolder(data)
    const login = { smb_host: host, smb_port: Number(port), smb_username: username, smb_password: password }
    return {
      flows: join(folder.path, 'flows'),
      block: { slug: 'smb', data: { share_path: `/flows/${folder.name}/flows`, ...login } },
      [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
    }
  },
}

/** What a command in a name would leave where this process is. */
const trace = `rigel-was-here-${process.pid}`

async function fetchFrom(place: Place, from?: string): Promise<Tree> {
  await using directory = await makeDirectory()
  const to = join(directory.path, 'to')
  const signal = AbortSignal.timeout(timeoutMs)
  await mkdir(to)
  try {
    await (await openStorage(place.block, makeContext({ environment }))).getDirectory(from, to, signal)
    return await readTree(to)
  } finally {
    const wasCarriedOut = existsSync(trace)
    await rm(trace, { force: true })
    assert.ok(!wasCarriedOut, 'a command was carried out')
  }
}

/** Bytes of which a name may consist on this machine, below a folder. */
function bytePath(folder: string, name: string): Buffer {
  return Buffer.concat([Buffer.from(`${folder}/`), Buffer.from(name, 'latin1')])
}

const strange = [
  '-rf',
  '--',
  '~',
  '~root',
  `$(touch ${trace})`,
  `\`touch ${trace}\``,
  `!touch ${trace}`,
  `a;touch ${trace}`,
  '&',
  "it's",
  '[a]',
  '{a,b}',
  '#',
  ' lead',
  '...',
  '%2e%2e',
  'NT_STATUS_ACCESS_DENIED',
  'e\u0301',
  '\u202Egnp',
  'x'.repeat(255),
  'ü'.repeat(127),
  'voilà',
  'ж'.repeat(20) + ' '.repeat(3),
]

const line = (name: string, attribute: 'N' | 'D') =>
  `${name.padEnd(30)}${attribute.padStart(7)}        0  Tue Nov 24 20:18:15 2026`

/** Samba takes them all, Windows none. */
const impossible = [
  'a\nb',
  'a\r',
  '\u0001\u001B[31m',
  '\ttab',
  'FLOW.py ',
  `"; !touch ${trace}`,
  `x"\n!touch ${trace}\nreget "`,
  'back\\slash',
  '..\\evil',
  '*',
  'a?',
  '<a',
  'a|b',
  'a:b',
  '  D        0  Tue Nov 24 20:18:15 2026',
  'a                                   N       12  Tue Nov 24 20:18:15 2026',
  'trail ',
  '. ',
  '.. ',
  `${line('ghost', 'D')}\nTry "help" `,
  `${line('ghost', 'D')}\n  ghost2`,
  `${line('.', 'D')}\nFLOW.py`,
  `${line('FLOW.PY', 'N')}\n  FLOW.Py`,
  `${line('SUB', 'D')}\n\n\\flows\\SUB\n  x`,
  `${line('ghost', 'D')}\n\n\t\t1 blocks of size 1024. 1 blocks available`,
]

for (const server of ['sftp', 'smb'] as const) {
  test(`${server}: names that look like options, commands and listings arrive as they are`, needs(server), async () => {
    await using place = await servers[server]()
    const names = server === 'sftp' ? [...strange, ...impossible] : strange
    for (const name of names) await writeFile(join(place.flows, name), name)
    await mkdir(join(place.flows, '-d ;!'))
    await writeFile(join(place.flows, '-d ;!', '$x'), 'inside')
    const expected = Object.fromEntries([...names.map(name => [name, name]), ['-d ;!/$x', 'inside']])
    const arrived = await fetchFrom(place)
    assert.deepEqual(arrived, { ...expected })
  })
}

interface Scene {
  readonly what: string
  readonly make: (flows: string) => Promise<unknown>
  /** What arrives, or the error. */
  readonly sftp: Tree | RegExp
  readonly smb: Tree | RegExp
}

const scenes: readonly Scene[] = [
  {
    what: 'a name that is not UTF-8',
    make: flows => writeFile(bytePath(flows, 'a\xff.py'), 'x'),
    sftp: /The name "a\ufffd\.py" has bytes in it that are not UTF-8/,
    smb: { 'flow.py': 'f' },
  },
  {
    what: 'a folder whose name is not UTF-8, beside one that looks like it',
    async make(flows) {
      for (const folder of [bytePath(flows, 'd\xff'), join(flows, 'd\ufffd')]) await mkdir(folder)
      await writeFile(bytePath(flows, 'd\xff/x.py'), 'x')
    },
    sftp: /The name "d\ufffd" has bytes in it that are not UTF-8/,
    smb: /The name "d\ufffd" has bytes in it that are not UTF-8/,
  },
  {
    what: 'a link to a name that is not UTF-8',
    make: flows => symlink(Buffer.from('n\xff', 'latin1'), join(flows, 'l')),
    sftp: /Link "l" points to "n\ufffd", which is not UTF-8/,
    smb: { 'flow.py': 'f' },
  },
  {
    what: 'a pipe',
    make: flows => run('mkfifo', [join(flows, 'pipe')]),
    sftp: /"pipe" is neither a file, a folder nor a link/,
    smb: { 'flow.py': 'f', pipe: '' },
  },
  {
    what: 'a device without an end',
    make: flows => run('mknod', [join(flows, 'zero'), 'c', '1', '5']),
    sftp: /"zero" is neither a file, a folder nor a link/,
    smb: { 'flow.py': 'f', zero: '' },
  },
  {
    what: 'links that lead in circles',
    async make(flows) {
      for (const [name, target] of [
        ['loop', '.'],
        ['ring', 'ring'],
        ['again', '.'],
      ] as const) {
        await symlink(target, join(flows, name))
      }
    },
    sftp: { 'flow.py': 'f', again: { link: '.' }, loop: { link: '.' }, ring: { link: 'ring' } },
    smb: /"\\.*\\(again|loop)\\(again|loop)" is in a circle of links/,
  },
  {
    what: 'a link to a folder beside it',
    async make(flows) {
      await mkdir(`${flows}-old`)
      await writeFile(join(`${flows}-old`, 'secret.py'), 's')
      await symlink(`../flows-old`, join(flows, 'old'))
    },
    sftp: /Link "old" points to "\.\.\/flows-old", outside of the tree/,
    smb: { 'flow.py': 'f', 'old/secret.py': 's' },
  },
  {
    what: 'a link to a file of the machine',
    make: flows => symlink('/etc/passwd', join(flows, 'passwd')),
    sftp: /Link "passwd" points to "\/etc\/passwd", outside of the tree/,
    smb: { 'flow.py': 'f' },
  },
  {
    what: 'an absolute link that turns behind another link',
    async make(flows) {
      await mkdir(join(flows, 'a/b'), { recursive: true })
      await symlink('a/b', join(flows, 'b'))
      await symlink(`${flows}/b/../flow.py`, join(flows, 'l'))
    },
    sftp: /Link "l" points to ".*\/b\/\.\.\/flow\.py", outside of the tree/,
    smb: { 'flow.py': 'f', 'a/b': null, b: null },
  },
  {
    what: 'an absolute link to the folder itself',
    make: flows => symlink(flows, join(flows, 'l')),
    sftp: { 'flow.py': 'f', l: { link: '.' } },
    smb: /"\\.*\\l\\l\\l\\l" is in a circle of links/,
  },
]

for (const server of ['sftp', 'smb'] as const) {
  for (const { what, make, [server]: expected } of scenes) {
    test(`${server}: ${what}`, needs(server), async () => {
      await using place = await servers[server]()
      await writeFile(join(place.flows, 'flow.py'), 'f')
      await make(place.flows)
      if (expected instanceof RegExp)
        await assert.rejects(fetchFrom(place), { name: 'StorageError', message: expected })
      else assert.deepEqual(await fetchFrom(place), expected)
    })
  }

  test(`${server}: what is uploaded under a strange name is there under it`, needs(server), async () => {
    await using place = await servers[server]()
    await using directory = await makeDirectory()
    for (const name of strange) await writeFile(join(directory.path, name), name)
    const storage = await openWritableStorage(place.block, makeContext({ environment }))
    await storage.putDirectory(directory.path, undefined, undefined, AbortSignal.timeout(timeoutMs))
    assert.deepEqual((await readdir(place.flows)).toSorted(), (await readdir(directory.path)).toSorted())
    assert.deepEqual(await fetchFrom(place), await readTree(directory.path))
  })
}

test('smb: no part of a path that is longer than a line is taken for a command', needs('smb'), async () => {
  await using place = await servers.smb()
  // smbclient reads this many bytes at once.
  const lineBytes = 8191
  const before = `ls "${String(place.block.data.share_path).replace('/flows/', '')}/`
  const from = `${'x'.repeat(lineBytes - before.length)}!touch ${trace} #`
  await assert.rejects(fetchFrom(place, from), { name: 'StorageError', message: /takes no path as long/ })
})

for (const name of impossible) {
  test(`smb: ${JSON.stringify(name)}, which no Windows could hold, is refused`, needs('smb'), async () => {
    await using place = await servers.smb()
    await mkdir(join(place.flows, 'sub'))
    for (const file of ['flow.py', 'sub/x', 'sub/flow.py', name]) await writeFile(join(place.flows, file), '')
    await assert.rejects(fetchFrom(place), { name: 'StorageError' })
  })
}
