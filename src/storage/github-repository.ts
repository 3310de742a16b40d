// `github-repository` of prefect-github, with `github-credentials`.

import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { openGit } from './git.ts'
import { loginOfToken, readGitAddress } from './git-login.ts'
import type { StorageBlock } from './registry.ts'
import type { Remote } from './source.ts'

const Fields = v.object({
  repository_url: v.pipe(v.string(), v.nonEmpty()),
  reference: v.nullish(v.string()),
  credentials: v.nullish(v.looseObject({ token: v.nullish(v.string()) })),
})

export function openGithubRepository(data: StorageBlock['data'], context: StorageContext): Remote {
  const { repository_url: url, reference, credentials } = readFields('github-repository', Fields, data)
  const login = loginOfToken('token of the github-credentials', credentials?.token)
  return openGit(
    {
      address: readGitAddress(url, login, true),
      reference: reference || undefined,
      base: '',
      keepsFolder: true,
      keepsGit: true,
    },
    context,
  )
}
