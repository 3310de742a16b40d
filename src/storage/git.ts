// Git repositories, by the system's own git: shallow, one revision, and one `ls-remote` when nothing has changed. What the
// blocks, the pull steps and the fsspec protocols of git have in common.

import { readdir, rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { FetchLimits, StorageContext } from './context.ts'
import { Git } from './git-command.ts'
import type { GitAddress } from './git-login.ts'
import { liftFolder } from './lift-folder.ts'
import { joinBelow } from './paths.ts'
import type { Entry, Remote, TreeSource } from './source.ts'
import { StorageError } from './storage.ts'
import { TreeNames } from './tree-names.ts'
import { removeTree } from './workspace.ts'

export interface GitSettings {
  readonly address: GitAddress
  /** Branch, tag, or commit (4 to 64 hex digits, when no branch or tag has that name); undefined: the default branch. */
  readonly reference: string | undefined
  /** Folder in the repository; '' is the top. */
  readonly base: string
  /** As Prefect's blocks do it: the folder `flows` of the repository becomes the folder `flows` of the workspace. */
  readonly keepsFolder: boolean
  /** Keep `.git`, when the whole repository is asked for. */
  readonly keepsGit: boolean
  readonly submodules?: boolean | undefined
  /** Only these folders, and the files above them (`git sparse-checkout`). */
  readonly directories?: readonly string[] | undefined
  /** Commits to fetch; null is all of them, default 1. */
  readonly depth?: number | null | undefined
}

export function openGit(settings: GitSettings, context: StorageContext): Remote {
  const { reference } = settings
  if (reference !== undefined && (reference.startsWith('-') || /[\0\n\r\s~^:?*[\\]|\.\./.test(reference))) {
    throw new StorageError(`"${reference}" cannot be the name of a branch, tag or commit`)
  }
  return { folder: from => new GitSource(settings, joinBelow(settings.base, from), context) }
}

/** A commit, and the branch or tag that led to it. */
interface Revision {
  readonly commit: string
  readonly ref: string
}

class GitSource implements TreeSource {
  readonly kind = 'tree'
  readonly place: string
  readonly credentials: string
  readonly identity: readonly unknown[]
  readonly #settings: GitSettings
  readonly #folder: string
  readonly #limits: FetchLimits
  readonly #git: Git

  constructor(settings: GitSettings, folder: string, context: StorageContext) {
    const { address, reference } = settings
    this.#settings = settings
    this.#folder = folder
    this.#limits = context.limits
    this.#git = new Git(address, context)
    this.place = `${folder === '' ? '' : `folder "${folder}" of `}git repository ${address.url} at ${reference ?? 'its default branch'}`
    this.credentials = address.login?.kind ?? "no credentials but git's own"
    this.identity = ['git', settings, folder]
  }

  async revision(signal: AbortSignal): Promise<string> {
    const { commit, ref } = await this.#find(signal)
    return `${commit} ${ref}`
  }

  async fetchTree(revision: string | undefined, to: string, signal: AbortSignal): Promise<void> {
    const [commit = '', ref = ''] = (revision ?? (await this.revision(signal))).split(' ')
    const found = await this.#download(commit, to, signal)
    await this.#judge(found, to, signal)
    await this.#checkOut({ commit: found.commit, ref }, to, signal)
    await this.#arrange(to)
  }

  async close(): Promise<void> {
    // Each command ends by itself.
  }

  /** Asks the server what the reference is now. `git clone -b` takes a branch before a tag, and so do we. */
  async #find(signal: AbortSignal): Promise<Revision> {
    const { reference, address } = this.#settings
    const names = reference === undefined ? [] : [reference, `refs/heads/${reference}`, `refs/tags/${reference}`]
    const patterns = names.flatMap(name => [name, `${name}^{}`])
    const words = ['ls-remote', '--symref', address.url, 'HEAD', ...patterns]
    const lines = (await this.#git.remote('/', words, signal)).split('\n').map(line => line.split('\t'))
    const commits = new Map(lines.map(([value = '', name = '']) => [name, value]))
    if (reference === undefined) {
      const head = lines.find(([value, name]) => name === 'HEAD' && value?.startsWith('ref: '))?.[0]?.slice(5)
      const commit = lines.find(([value, name]) => name === 'HEAD' && !value?.startsWith('ref: '))?.[0]
      if (!commit) throw new StorageError('The repository is empty: it has no commit')
      return { commit, ref: head ?? '' }
    }
    const heads = [
      `refs/heads/${reference}`,
      `refs/tags/${reference}`,
      ...(reference.startsWith('refs/') ? [reference] : []),
    ]
    const ref = heads.find(name => commits.has(name))
    const commit = ref && (commits.get(`${ref}^{}`) ?? commits.get(ref))
    if (ref && commit) return { commit, ref }
    if (/^[0-9a-f]{4,64}$/i.test(reference)) return { commit: reference.toLowerCase(), ref: '' }
    throw new StorageError(`There is no branch and no tag "${reference}" in it (git ls-remote found none)`)
  }

  /** The objects of one commit, whose full name it gives. `isLazy`: its files come when they are checked out. */
  async #download(commit: string, to: string, signal: AbortSignal): Promise<{ commit: string; isLazy: boolean }> {
    const { address, depth = 1, directories } = this.#settings
    await this.#git.local(to, ['init', '--quiet', '--template=', '.'], signal)
    await this.#git.local(to, ['remote', 'add', 'origin', address.url], signal)
    const isWhole = /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(commit)
    const isLazy = directories !== undefined || !isWhole
    const fetch = ['fetch', '--quiet', '--no-tags', '--no-write-fetch-head', '--no-recurse-submodules']
    if (isLazy) fetch.push('--filter=blob:none')
    const all = [...fetch, 'origin', '+refs/heads/*:refs/remotes/origin/*', '+refs/tags/*:refs/tags/*']
    if (!isWhole) {
      await this.#git.remote(to, all, signal)
      return { commit: await this.#completeName(commit, to, signal), isLazy }
    }
    const shallow = depth === null ? [] : [`--depth=${depth}`]
    try {
      await this.#git.remote(to, [...fetch, ...shallow, 'origin', commit], signal)
    } catch (error) {
      // Old servers give no commit that is not the tip of something.
      if (!(error instanceof StorageError) || !/unadvertised object|not our ref/.test(error.message)) throw error
      await this.#git.remote(to, all, signal)
      await this.#completeName(commit, to, signal)
    }
    return { commit, isLazy }
  }

  async #completeName(commit: string, to: string, signal: AbortSignal): Promise<string> {
    try {
      const words = ['rev-parse', '--verify', '--quiet', `${commit}^{commit}`]
      return (await this.#git.local(to, words, signal)).trim()
    } catch (error) {
      if (!(error instanceof StorageError)) throw error
      throw new StorageError(`There is no branch, tag or commit "${commit}" in it`)
    }
  }

  /** Before anything is written: names, sizes, and that the folder is one. */
  async #judge(
    { commit, isLazy }: { commit: string; isLazy: boolean },
    to: string,
    signal: AbortSignal,
  ): Promise<void> {
    const names = new TreeNames(this.#limits)
    // A folder may also lie in a submodule, of which nothing is known yet.
    const folder = this.#settings.submodules ? '' : this.#folder
    const words = ['ls-tree', '-r', '-z', '--full-tree']
    // To know a size, git would fetch the file.
    if (!isLazy) words.push('--long')
    words.push(commit, ...(folder === '' ? [] : [folder]))
    for (const line of (await this.#git.local(to, words, signal)).split('\0')) {
      if (line === '') continue
      const entry = readEntry(line)
      if (entry.path === folder)
        throw new StorageError(`It is a ${entry.kind === 'file' ? 'file' : 'submodule'}, not a folder`)
      names.add(entry)
    }
    if (names.isEmpty) throw new StorageError('There is nothing below it')
  }

  async #checkOut({ commit, ref }: Revision, to: string, signal: AbortSignal): Promise<void> {
    const { directories, submodules } = this.#settings
    if (directories) await this.#git.local(to, ['sparse-checkout', 'set', '--', ...directories], signal)
    const branch = /^refs\/heads\/(.+)$/.exec(ref)?.[1]
    const target = branch === undefined ? ['--detach', commit] : ['-B', branch, commit]
    if (this.#folder === '' || submodules) {
      await this.#git.local(to, ['checkout', '--quiet', '--no-recurse-submodules', ...target, '--'], signal)
    } else {
      // The whole index, for the rules of .gitattributes above the folder.
      await this.#git.local(to, ['read-tree', commit], signal)
      await this.#git.local(to, ['checkout', '--quiet', '--', this.#folder], signal)
    }
    if (submodules) {
      const shallow = this.#settings.depth === null ? [] : ['--depth=1']
      await this.#git.remote(to, ['submodule', '--quiet', 'update', '--init', '--recursive', ...shallow], signal)
    }
  }

  /** Leaves what was asked for, where it belongs. */
  async #arrange(to: string): Promise<void> {
    const { keepsGit, keepsFolder, submodules } = this.#settings
    const folder = this.#folder
    if (folder === '' && keepsGit) return
    await removeTree(join(to, '.git'))
    if (submodules) await removeSubmoduleLinks(to)
    if (folder === '') return
    await liftFolder(to, folder, keepsFolder)
  }
}

/** Each submodule has a file `.git` that names a folder below the `.git` which is gone now. */
async function removeSubmoduleLinks(to: string): Promise<void> {
  for (const path of await readdir(to, { recursive: true })) if (basename(path) === '.git') await rm(join(to, path))
}

/** `<mode> <type> <object> <size>\t<path>`, the size only with --long. */
function readEntry(line: string): Entry {
  const tab = line.indexOf('\t')
  const [mode = '', , , size] = line.slice(0, tab).split(/ +/)
  const path = line.slice(tab + 1)
  // A submodule is an empty folder until it is asked for.
  if (mode === '160000') return { kind: 'folder', path }
  // What a link points to is judged when the tree is taken into the cache; git itself writes through none.
  return { kind: 'file', path, size: size === undefined ? undefined : Number(size), validator: undefined, ref: '' }
}
