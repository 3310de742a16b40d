// With which keys, in which region and at which address a bucket is reached. What the block does not say comes from Amazon's
// own SDK and its credential chain: environment, profiles, SSO, web identity, container and instance roles.

import { Agent } from 'node:https'
import { errorCode } from '../errors.ts'
import { chooseProxy, type ProxyOptions } from '../proxy.ts'
import type { StorageContext } from './context.ts'
import type { S3Settings } from './s3-settings.ts'
import type { S3Keys } from './s3-signature.ts'
import { StorageError } from './storage.ts'

export interface S3Access {
  /** Asked before each request, for those of the chain expire; undefined: requests are not signed. */
  readonly keys: () => Promise<S3Keys | undefined>
  readonly region: string
  /** Scheme and host without bucket. */
  readonly endpoint: URL
  readonly pathStyle: boolean
}

const defaultRegion = 'us-east-1'

/**
 * For the credential chain, to which the client hands its settings: how long a container's or an instance's role may take to
 * be told. Its own second is soon over on a busy machine.
 */
const patience = { timeout: 5000 }

/** For people: the kind of credentials. */
export function credentialsKind(settings: S3Settings): string {
  if (settings.anonymous) return 'anonymous'
  if (settings.accessKeyId) return `access key${settings.sessionToken ? ' and session token' : ''} of the block`
  if (settings.profile) return `profile "${settings.profile}" of ~/.aws`
  return 'credentials of this machine: environment, ~/.aws or role'
}

export async function openAccess(settings: S3Settings, { environment, proxies }: StorageContext): Promise<S3Access> {
  const { accessKeyId, secretAccessKey, sessionToken } = settings
  if (Boolean(accessKeyId) !== Boolean(secretAccessKey)) {
    throw new StorageError(`Of the access key only ${accessKeyId ? 'the id' : 'the secret'} is given`)
  }
  if (settings.assumeRole) {
    // With the keys alone somebody else would fetch than the block says.
    throw new StorageError(
      `The block's "assume_role_arn" cannot be used: name a profile of ~/.aws that has it as its "role_arn"`,
    )
  }
  const endpoint = readEndpoint(settings, environment)
  const knownRegion =
    settings.region ?? (settings.profile ? undefined : (environment.AWS_REGION ?? environment.AWS_DEFAULT_REGION))
  const fixed: S3Keys | undefined =
    accessKeyId && secretAccessKey ? { accessKeyId, secretAccessKey, sessionToken } : undefined
  const needsSdk = (!fixed && !settings.anonymous) || (!knownRegion && !endpoint)
  const sdk = needsSdk ? await openSdk(settings, proxies) : undefined
  const region = knownRegion ?? (await sdk?.region()) ?? defaultRegion
  return {
    keys: async () => (settings.anonymous ? undefined : (fixed ?? (await sdk?.keys()))),
    region,
    endpoint: endpoint ?? new URL(`https://s3.${region}.amazonaws.com${region.startsWith('cn-') ? '.cn' : ''}`),
    pathStyle: settings.pathStyle ?? (Boolean(endpoint) || settings.bucket.includes('.')),
  }
}

/** The block's, else the environment's; undefined: Amazon's for the region. */
export function readEndpoint(
  { endpoint }: S3Settings,
  { AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL }: StorageContext['environment'],
): URL | undefined {
  const said = Object.entries({ endpoint_url: endpoint, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL })
  const [name, text] = said.find(([, text]) => text !== undefined) ?? []
  if (!text) return undefined
  const url = URL.parse(/^https?:\/\//.test(text) ? text : `https://${text}`)
  if (!url) throw new StorageError(`"${name}" is not a URL`)
  return url
}

/** 33 MB: only where the block leaves something open. It asks roles and SSO by itself, and knows no proxies. */
async function openSdk({ profile, region }: S3Settings, { no, ...proxies }: ProxyOptions) {
  const { S3Client } = await import('@aws-sdk/client-s3')
  const proxy = chooseProxy(new URL('https://amazonaws.com'), proxies)
  const httpsAgent = new Agent({ proxyEnv: { HTTPS_PROXY: proxy, NO_PROXY: no } })
  const client = new S3Client({
    ...patience,
    ...(profile ? { profile } : {}),
    ...(region ? { region } : {}),
    requestHandler: { httpsAgent },
  })
  return {
    region: () => Promise.resolve(client.config.region()).catch(() => undefined),
    keys: async (): Promise<S3Keys> => {
      try {
        return await client.config.credentials()
      } catch (error) {
        throw new StorageError(`No credentials were found${errorCode(error) ? ` (${errorCode(error)})` : ''}`, {
          cause: error,
        })
      }
    },
  }
}
