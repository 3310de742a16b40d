// One connection to an SSH server with its SFTP channel, by ssh2. The keys tried are those that paramiko tries for fsspec.

import { timingSafeEqual } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { AnyAuthMethod, Client, ConnectConfig, ServerHostKeyAlgorithm, SFTPWrapper } from 'ssh2'
import { describeError } from '../errors.ts'
import type { StorageContext } from './context.ts'
import { isTransient } from './retry.ts'
import { type KnownKey, readKnownKeys } from './sftp-known-hosts.ts'
import { TransientError } from './source.ts'
import { StorageError } from './storage.ts'

const connectMs = 20_000

export interface SshPlace {
  readonly host: string
  readonly port: number
  readonly username: string
  readonly password: string | undefined
  readonly keyFiles: readonly string[]
  readonly passphrase: string | undefined
  readonly allowAgent: boolean
  /** Also the keys in ~/.ssh. */
  readonly looksForKeys: boolean
  /** What to do with a host that no known_hosts file knows; one whose key is another than the known one is never accepted. */
  readonly unknownHost: 'accept' | 'warn' | 'reject'
}

export interface SshSession {
  readonly client: Client
  readonly sftp: SFTPWrapper
  close(): void
}

export async function openSsh(place: SshPlace, context: StorageContext, signal: AbortSignal): Promise<SshSession> {
  signal.throwIfAborted()
  const { Client } = (await import('ssh2')).default
  const keys = await readKnownKeys(context.home, place.host, place.port)
  // A revoked key says which one it must not be: the host is as unknown as before.
  const known = keys.filter(({ isRevoked }) => !isRevoked)
  const authHandler = await listMethods(place, context)
  const client = new Client()
  const hostKey = { refusal: undefined as string | undefined }
  const options: ConnectConfig = {
    host: place.host,
    port: place.port,
    username: place.username,
    readyTimeout: connectMs,
    keepaliveInterval: 10_000,
    keepaliveCountMax: 3,
    authHandler,
    algorithms: {
      // AES with GCM is done by OpenSSL; what ssh2 does by itself costs four times as much.
      cipher: { prepend: ['aes128-gcm@openssh.com', 'aes256-gcm@openssh.com'], append: [], remove: [] },
      // The kind of key that is known for the host first, or another kind would look like another host.
      serverHostKey: { prepend: known.flatMap(typesOf), append: [], remove: [] },
    },
    hostVerifier: (key: Buffer) => {
      hostKey.refusal = judgeKey(key, keys, place)
      if (known.length === 0 && place.unknownHost === 'warn') {
        context.logger?.warn({ host: place.host, port: place.port }, 'host key of the ssh server is unknown')
      }
      return hostKey.refusal === undefined
    },
  }
  const abort = () => client.destroy()
  signal.addEventListener('abort', abort)
  try {
    const sftp = await connect(client, options)
    return { client, sftp, close: () => client.end() }
  } catch (error) {
    client.destroy()
    signal.throwIfAborted()
    if (hostKey.refusal !== undefined) throw new StorageError(hostKey.refusal)
    throw sshError('Connecting', error)
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

function connect(client: Client, options: ConnectConfig): Promise<SFTPWrapper> {
  return new Promise((resolve, reject) => {
    client.on('ready', () => client.sftp((error, sftp) => (error ? reject(error) : resolve(sftp))))
    // Stays: a connection that breaks later is told to those who wait for an answer.
    client.on('error', reject)
    client.on('close', () => reject(new TransientError('The server has closed the connection')))
    client.connect(options)
    // Else each request waits for the answer to the one before, on its way through many servers 40 ms (Nagle).
    client.setNoDelay(true)
  })
}

/** In paramiko's order: the key that is named, the agent, the user's own keys, the password. */
async function listMethods(place: SshPlace, { environment, home }: StorageContext): Promise<AnyAuthMethod[]> {
  const { username, password, passphrase } = place
  const methods: AnyAuthMethod[] = []
  for (const file of place.keyFiles) {
    const key = await readFile(file.replace(/^~(?=\/)/, home)).catch((error: unknown) => {
      throw new StorageError(`Key file "${file}" cannot be read`, { cause: error })
    })
    methods.push({ type: 'publickey', username, key, ...(passphrase === undefined ? {} : { passphrase }) })
  }
  const agent = environment.SSH_AUTH_SOCK
  if (place.allowAgent && agent) methods.push({ type: 'agent', username, agent })
  if (place.looksForKeys) {
    for (const name of ['id_ed25519', 'id_ecdsa', 'id_rsa']) {
      const key = await readFile(join(home, '.ssh', name)).catch(() => undefined)
      // One with a passphrase cannot be used without a person.
      if (key && (await isUsable(key, passphrase))) {
        methods.push({ type: 'publickey', username, key, ...(passphrase === undefined ? {} : { passphrase }) })
      }
    }
  }
  if (password !== undefined) {
    methods.push({ type: 'password', username, password })
    const answer = (
      _name: string,
      _words: string,
      _language: string,
      prompts: readonly unknown[],
      done: (answers: string[]) => void,
    ) => done(prompts.map(() => password))
    methods.push({ type: 'keyboard-interactive', username, prompt: answer })
  }
  if (methods.length === 0) throw new StorageError('There is neither a password nor a key nor an agent to log in with')
  return methods
}

async function isUsable(key: Buffer, passphrase: string | undefined): Promise<boolean> {
  const { utils } = (await import('ssh2')).default
  return !(utils.parseKey(key, passphrase) instanceof Error)
}

function typesOf({ type }: KnownKey): ServerHostKeyAlgorithm[] {
  if (type === 'ssh-rsa') return ['rsa-sha2-512', 'rsa-sha2-256']
  const types: readonly ServerHostKeyAlgorithm[] = [
    'ssh-ed25519',
    'ecdsa-sha2-nistp256',
    'ecdsa-sha2-nistp384',
    'ecdsa-sha2-nistp521',
  ]
  return types.filter(known => known === type)
}

function judgeKey(key: Buffer, keys: readonly KnownKey[], { host, port, unknownHost }: SshPlace): string | undefined {
  const same = keys.filter(({ base64 }) => equal(Buffer.from(base64, 'base64'), key))
  if (same.some(({ isRevoked }) => isRevoked))
    return `The host key of ${host}:${port} is marked as revoked in known_hosts`
  if (same.length > 0) return undefined
  if (keys.some(({ isRevoked }) => !isRevoked))
    return `The host key of ${host}:${port} is not the one in known_hosts: somebody may be in between`
  return unknownHost === 'reject' ? `The host key of ${host}:${port} is not in known_hosts` : undefined
}

function equal(one: Buffer, other: Buffer): boolean {
  return one.length === other.length && timingSafeEqual(one, other)
}

/** Status codes of SFTP (draft-ietf-secsh-filexfer-02, section 7) that people meet. */
const statuses: Readonly<Record<number, string>> = { 2: 'No such file', 3: 'Permission denied', 4: 'Failure' }

export function sshError(what: string, error: unknown): unknown {
  if (error instanceof StorageError || error instanceof TransientError) return error
  const words = describeError(error)
  if (error instanceof Error && 'level' in error && error.level === 'client-authentication') {
    return new StorageError(`${what} failed: the server takes none of the credentials (${words})`)
  }
  if (error instanceof Error && 'code' in error && typeof error.code === 'number') {
    const status = statuses[error.code] ?? `status ${error.code}`
    return new StorageError(`${what} failed (${words.includes(status) ? words : `${status}: ${words}`})`)
  }
  if (isTransient(error)) return new TransientError(`${what} broke off (${words})`, { cause: error })
  if (/No response from server|Not connected|Timed out|closed|Channel|ECONN|EPIPE/i.test(words)) {
    return new TransientError(`${what} broke off (${words})`, { cause: error })
  }
  return error instanceof Error ? new StorageError(`${what} failed (${words})`, { cause: error }) : error
}
