// `bitbucket-repository` of prefect-bitbucket, with `bitbucket-credentials`: Bitbucket Cloud, Server and Data Center.

import * as v from 'valibot'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import { openGit } from './git.ts'
import { type GitLogin, loginOfToken, readGitAddress } from './git-login.ts'
import type { StorageBlock } from './registry.ts'
import type { Remote } from './source.ts'

const text = v.nullish(v.string())
const Credentials = v.looseObject({ token: text, username: text, password: text })

const Fields = v.object({
  repository: v.pipe(v.string(), v.nonEmpty()),
  reference: text,
  bitbucket_credentials: v.nullish(Credentials),
})

export function openBitbucketRepository(data: StorageBlock['data'], context: StorageContext): Remote {
  const { repository, reference, bitbucket_credentials } = readFields('bitbucket-repository', Fields, data)
  const address = readGitAddress(repository, bitbucket_credentials ? loginOf(bitbucket_credentials) : undefined, true)
  return openGit({ address, reference: reference || undefined, base: '', keepsFolder: true, keepsGit: true }, context)
}

/** An access token without a user goes by Bitbucket's fixed name for it. */
function loginOf({ token, username, password }: v.InferOutput<typeof Credentials>): GitLogin | undefined {
  const secret = token || password
  if (!secret) return undefined
  const kind = `${token ? 'token' : 'password'} of the bitbucket-credentials`
  return username ? { kind, username, password: secret } : loginOfToken(kind, secret, 'x-token-auth')
}
