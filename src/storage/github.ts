// `github` of Prefect 2: a repository on GitHub, or anywhere else where git can clone it.

import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { openGit } from './git.ts'
import { loginOfToken, readGitAddress } from './git-login.ts'
import type { StorageBlock } from './registry.ts'
import type { Remote } from './source.ts'

const Fields = v.object({
  repository: v.pipe(v.string(), v.nonEmpty()),
  reference: v.nullish(v.string()),
  access_token: v.nullish(v.string()),
  include_git_objects: v.nullish(v.boolean(), true),
})

export function openGithub(data: StorageBlock['data'], context: StorageContext): Remote {
  const fields = readFields('github', Fields, data)
  const login = loginOfToken('access token of the block', fields.access_token)
  return openGit(
    {
      address: readGitAddress(fields.repository, login, true),
      reference: fields.reference || undefined,
      base: '',
      keepsFolder: true,
      keepsGit: fields.include_git_objects,
    },
    context,
  )
}
