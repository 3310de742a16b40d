// `gitlab-repository` of prefect-gitlab, with `gitlab-credentials`.

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
  git_depth: v.nullish(v.pipe(v.number(), v.integer(), v.minValue(1))),
  credentials: v.nullish(v.looseObject({ token: v.nullish(v.string()) })),
})

export function openGitlabRepository(data: StorageBlock['data'], context: StorageContext): Remote {
  const { repository, reference, git_depth, credentials } = readFields('gitlab-repository', Fields, data)
  // GitLab knows a token under this name; a deploy token has its own: `name:token`.
  const login = loginOfToken('token of the gitlab-credentials', credentials?.token, 'oauth2')
  return openGit(
    {
      address: readGitAddress(repository, login),
      reference: reference || undefined,
      base: '',
      keepsFolder: true,
      keepsGit: true,
      // Missing is Prefect's default, null is the whole history.
      depth: 'git_depth' in data ? git_depth : 1,
    },
    context,
  )
}
