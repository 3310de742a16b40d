// A repository of its own on a real git server, for tests; commits are put together from raw objects, so they can hold what
// no git would commit.

import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chown, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import { promisify } from 'node:util'
import { storageServer } from '../support/storage-servers.ts'

const execute = promisify(execFile)

export interface GitEntry {
  readonly mode: '100644' | '100755' | '120000' | '160000'
  /** Text of a file, target of a link, or the commit of a submodule. */
  readonly text: string
}

export interface GitRepository {
  /** Folder of the bare repository. */
  readonly path: string
  /** `private/<name>.git` on the HTTP server. */
  readonly name: string
  /** Commits these entries to a branch, in place of what it held; gives the commit. */
  commit(entries: Readonly<Record<string, string | GitEntry>>, branch?: string): Promise<string>
  git(...words: readonly string[]): Promise<string>
}

export async function makeRepository(folder: 'public' | 'private' | 'ssh'): Promise<GitRepository> {
  const name = `${folder}/test-${randomBytes(6).toString('hex')}.git`
  const root = folder === 'ssh' ? storageServer('sftp').git_root : storageServer('git').repos
  const path = join(root ?? '', folder === 'ssh' ? name.slice(4) : name)
  await run(['init', '--quiet', '--bare', '--initial-branch=main', path])
  const git = (...words: readonly string[]) => run(['-C', path, ...words])
  return {
    path,
    name,
    git,
    async commit(entries, branch = 'main') {
      const tree = await writeTree(path, entries)
      const commit = await git('commit-tree', tree, '-m', 'test')
      await git('update-ref', `refs/heads/${branch}`, commit)
      // The user of the ssh server may read only what is theirs.
      if (folder === 'ssh') await giveAway(path)
      return commit
    },
  }
}

async function giveAway(path: string): Promise<void> {
  await chown(path, 20001, 65534)
  for (const name of await readdir(path, { recursive: true })) await chown(join(path, name), 20001, 65534)
}

type Folder = Map<string, Folder | GitEntry>

async function writeTree(path: string, entries: Readonly<Record<string, string | GitEntry>>): Promise<string> {
  const root: Folder = new Map()
  for (const [name, entry] of Object.entries(entries)) {
    const parts = name.split('/')
    const last = parts.pop() ?? ''
    let folder = root
    for (const part of parts) {
      const known = folder.get(part)
      const next: Folder = known instanceof Map ? known : new Map()
      // A file of that name stays beside it, as no file system could have it.
      if (known === undefined || known instanceof Map) folder.set(part, next)
      else folder.set(`${part}\0`, next)
      folder = next
    }
    folder.set(last, typeof entry === 'string' ? { mode: '100644', text: entry } : entry)
  }
  return writeFolder(path, root)
}

async function writeFolder(path: string, folder: Folder): Promise<string> {
  const parts: Buffer[] = []
  for (const [name, entry] of folder) {
    const isFolder = entry instanceof Map
    const id = isFolder
      ? await writeFolder(path, entry)
      : entry.mode === '160000'
        ? entry.text
        : await run(['-C', path, 'hash-object', '-w', '--stdin'], entry.text)
    const head = `${isFolder ? '40000' : entry.mode} ${name.replace('\0', '')}\0`
    parts.push(Buffer.from(head), Buffer.from(id, 'hex'))
  }
  return run(['-C', path, 'hash-object', '-t', 'tree', '-w', '--literally', '--stdin'], Buffer.concat(parts))
}

async function run(words: readonly string[], input?: string | Buffer): Promise<string> {
  const person = { GIT_AUTHOR_NAME: 't', GIT_AUTHOR_EMAIL: 't@t', GIT_COMMITTER_NAME: 't', GIT_COMMITTER_EMAIL: 't@t' }
  const env = {
    ...process.env,
    ...person,
    GIT_CONFIG_COUNT: '1',
    GIT_CONFIG_KEY_0: 'safe.directory',
    GIT_CONFIG_VALUE_0: '*',
  }
  const started = execute('git', [...words], { env })
  // A command that reads nothing may have ended before an empty input is written.
  if (input !== undefined) started.child.stdin?.end(input)
  return (await started).stdout.trim()
}

/** Environment of an agent that trusts the test's authority. */
export function gitEnvironment(): Record<string, string> {
  return { PATH: process.env.PATH ?? '', GIT_SSL_CAINFO: storageServer('git').ca_file ?? '' }
}
