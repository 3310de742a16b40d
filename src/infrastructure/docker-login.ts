// Chooses the login for a pull: the block's registry, else what `docker login` has left on this machine.
//
// A login is only ever sent for images of its own registry.

import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { errorCode } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { RegistryAuth } from './docker-engine.ts'
import { registryHost } from './docker-reference.ts'
import type { RegistryLogin } from './docker-settings.ts'

const hubAddress = 'https://index.docker.io/v1/'

const configSchema = v.object({
  auths: v.optional(
    v.record(v.string(), v.object({ auth: v.optional(v.string()), identitytoken: v.optional(v.string()) })),
    {},
  ),
  credsStore: v.optional(v.string()),
  credHelpers: v.optional(v.record(v.string(), v.string()), {}),
})

const helperSchema = v.object({ Username: v.string(), Secret: v.string() })

export interface LoginSources {
  readonly login: RegistryLogin | undefined
  /** Docker's folder with config.json. */
  readonly configDirectory: string
  /** For credential helpers, which are looked up on PATH. */
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly logger: Logger
}

/** `registry` is the host that the image comes from. Undefined: pull as nobody. */
export async function chooseLogin(registry: string, sources: LoginSources): Promise<RegistryAuth | undefined> {
  const { login, logger } = sources
  if (login) {
    if (registryHost(login.registryUrl) === registryHost(registry)) {
      return { username: login.username, password: login.password, serveraddress: login.registryUrl }
    }
    logger.warn(
      { registry, login_for: registryHost(login.registryUrl) },
      'the block holds a login for another registry',
    )
  }
  return await readStoredLogin(registryHost(registry), sources)
}

async function readStoredLogin(host: string, sources: LoginSources): Promise<RegistryAuth | undefined> {
  const config = await readConfig(sources)
  if (!config) return undefined
  const serveraddress = host === 'docker.io' ? hubAddress : host
  const helper = config.credHelpers[host] ?? config.credHelpers[serveraddress] ?? config.credsStore
  if (helper) {
    const found = await askHelper(helper, serveraddress, sources.environment)
    if (found) return found
  }
  const entry = Object.entries(config.auths).find(([key]) => registryHost(key) === host)?.[1]
  if (entry?.identitytoken) return { identitytoken: entry.identitytoken, serveraddress }
  if (!entry?.auth) return undefined
  const text = Buffer.from(entry.auth, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  return colon < 0 ? undefined : { username: text.slice(0, colon), password: text.slice(colon + 1), serveraddress }
}

async function readConfig(sources: LoginSources): Promise<v.InferOutput<typeof configSchema> | undefined> {
  const path = join(sources.configDirectory, 'config.json')
  try {
    return v.parse(configSchema, JSON.parse(await readFile(path, 'utf8')))
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') sources.logger.warn({ path }, 'stored registry logins cannot be read')
    return undefined
  }
}

/** Docker's credential helper protocol: the address on standard input, JSON on standard output. */
async function askHelper(
  name: string,
  address: string,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<RegistryAuth | undefined> {
  if (!/^[\w.-]+$/.test(name)) return undefined
  const { promise, resolve } = Promise.withResolvers<string | undefined>()
  const child = execFile(`docker-credential-${name}`, ['get'], { env: environment, timeout: 10_000 }, (error, stdout) =>
    resolve(error ? undefined : stdout),
  )
  child.stdin?.on('error', () => resolve(undefined))
  child.stdin?.end(address)
  const text = await promise
  if (text === undefined) return undefined
  try {
    const { Username, Secret } = v.parse(helperSchema, JSON.parse(text))
    return Username === '<token>'
      ? { identitytoken: Secret, serveraddress: address }
      : { username: Username, password: Secret, serveraddress: address }
  } catch {
    return undefined
  }
}
