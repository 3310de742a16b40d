// `github://org:repo@reference/folder` in a `remote-file-system` block, with the settings of fsspec's GithubFileSystem. That
// one asks GitHub's API for each file; a shallow fetch by git brings the same tree at once.

import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { openGit } from './git.ts'
import { readGitAddress } from './git-login.ts'
import type { RemoteUrl } from './protocols.ts'
import type { Remote } from './source.ts'
import { StorageError } from './storage.ts'

const text = v.nullish(v.string())
const Settings = v.looseObject({ org: text, repo: text, sha: text, username: text, token: text })

export function openGithubUrl(
  { rest }: RemoteUrl,
  settings: Readonly<Record<string, unknown>>,
  context: StorageContext,
): Remote {
  const fields = readFields('remote-file-system (github)', Settings, settings)
  // What the settings say goes before what the URL says, as in fsspec.
  const [, orgOfUrl, repoOfUrl, shaOfUrl, path = rest] = /^([^:@/]+):([^:@/]+)@([^/]*)(?:\/(.*))?$/s.exec(rest) ?? []
  const org = fields.org || orgOfUrl
  const repo = fields.repo || repoOfUrl
  if (!org || !repo) {
    throw new StorageError(
      'The block names no repository: give "org" and "repo", or write github://org:repo@reference/folder',
    )
  }
  if (![org, repo].every(name => /^[\w.-]+$/.test(name)))
    throw new StorageError('"org" or "repo" is not a name on GitHub')
  const { username, token } = fields
  const login = token
    ? { kind: 'token of the block', username: username || 'x-access-token', password: token }
    : undefined
  return openGit(
    {
      address: readGitAddress(`https://github.com/${org}/${repo}.git`, login, true),
      reference: fields.sha || shaOfUrl || undefined,
      base: path,
      keepsFolder: false,
      keepsGit: false,
    },
    context,
  )
}
