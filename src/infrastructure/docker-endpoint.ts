// Finds out which Docker engine is meant, by the rules of Docker's own command line.
//
// In: what DOCKER_HOST, DOCKER_CONTEXT and their companions say (read by config/). Out: an Endpoint, or a UserError.
// Order: DOCKER_HOST, DOCKER_CONTEXT, the current context of config.json, the local socket.

import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { errorCode, UserError } from '../errors.ts'

export type Endpoint = (SocketEndpoint | TcpEndpoint | SshEndpoint) & {
  /** Prefect's (docker-py's) name of it, the first half of an `infrastructure_pid`. */
  readonly baseUrl: string
}

export interface SocketEndpoint {
  readonly kind: 'socket'
  readonly path: string
}

export interface TcpEndpoint {
  readonly kind: 'tcp'
  readonly host: string
  readonly port: number
  /** PEM texts; undefined speaks in the clear. */
  readonly tls: Tls | undefined
}

export interface Tls {
  readonly ca: string | undefined
  readonly cert: string | undefined
  readonly key: string | undefined
  readonly verify: boolean
}

export interface SshEndpoint {
  readonly kind: 'ssh'
  /** `user@host` or a name of the user's ssh configuration. */
  readonly destination: string
  readonly port: number | undefined
  /** Path of the engine's socket over there. */
  readonly remoteSocket: string
}

/** What the environment says; every field may be missing. */
export interface EngineChoice {
  /** DOCKER_HOST */
  readonly host?: string | undefined
  /** DOCKER_CONTEXT */
  readonly context?: string | undefined
  /** DOCKER_TLS_VERIFY: not empty asks for TLS with a verified server. */
  readonly tlsVerify?: string | undefined
  /** DOCKER_CERT_PATH: folder with ca.pem, cert.pem and key.pem. */
  readonly certPath?: string | undefined
  /** DOCKER_CONFIG, by default `~/.docker`. */
  readonly configDirectory: string
}

const localSocket = '/var/run/docker.sock'

export async function resolveEndpoint(choice: EngineChoice): Promise<Endpoint> {
  if (choice.host) {
    const tlsFolder = choice.tlsVerify || choice.certPath ? (choice.certPath ?? choice.configDirectory) : undefined
    return parseHost(choice.host, tlsFolder ? await readTls(tlsFolder, Boolean(choice.tlsVerify)) : undefined)
  }
  const context = choice.context || (await readCurrentContext(choice.configDirectory)) || 'default'
  if (context !== 'default') return readContext(choice.configDirectory, context)
  const desktop = join(choice.configDirectory, 'run', 'docker.sock')
  return socketAt(!existsSync(localSocket) && existsSync(desktop) ? desktop : localSocket)
}

function socketAt(path: string): Endpoint {
  return { kind: 'socket', path, baseUrl: 'http+docker://localhost' }
}

/** Reads a host as DOCKER_HOST has it. */
export function parseHost(host: string, tls: Tls | undefined): Endpoint {
  if (host.startsWith('unix://')) return socketAt(host.slice('unix://'.length) || localSocket)
  const text = host.includes('://') ? host : `tcp://${host}`
  if (!URL.canParse(text)) throw wrongHost(host)
  const url = new URL(text)
  // URL keeps the brackets of an IPv6 address; sockets want it without.
  const name = url.hostname.replace(/^\[|\]$/g, '')
  switch (url.protocol) {
    case 'ssh:': {
      const destination = url.username ? `${decodeURIComponent(url.username)}@${name}` : name
      // A destination with a leading dash would be an option to ssh.
      if (name === '' || destination.startsWith('-')) throw wrongHost(host)
      return {
        kind: 'ssh',
        destination,
        port: url.port ? Number(url.port) : undefined,
        remoteSocket: url.pathname.length > 1 ? url.pathname : localSocket,
        baseUrl: 'http+docker://ssh',
      }
    }
    case 'tcp:':
    case 'http:':
    case 'https:': {
      if (name === '') throw wrongHost(host)
      const secure = tls ?? (url.protocol === 'https:' ? noClientCertificate : undefined)
      const port = url.port ? Number(url.port) : secure ? 2376 : 2375
      return {
        kind: 'tcp',
        host: name,
        port,
        tls: secure,
        baseUrl: `${secure ? 'https' : 'http'}://${url.hostname}:${port}`,
      }
    }
    default:
      throw wrongHost(host)
  }
}

const noClientCertificate: Tls = { ca: undefined, cert: undefined, key: undefined, verify: true }

function wrongHost(host: string): UserError {
  return new UserError(`Docker host "${host.replace(/\/\/[^@/]*@/, '//***@')}" cannot be understood.`, {
    hint: 'Write unix:///path/to.sock, tcp://host:port or ssh://user@host.',
    exitCode: 2,
  })
}

async function readTls(folder: string, verify: boolean): Promise<Tls> {
  const [ca, cert, key] = await Promise.all(
    ['ca.pem', 'cert.pem', 'key.pem'].map(file => readIfThere(join(folder, file))),
  )
  return { ca, cert, key, verify }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw new UserError(`Could not read ${path}.`, { cause: error })
  }
}

const configSchema = v.object({ currentContext: v.optional(v.string()) })
const metaSchema = v.object({
  Endpoints: v.object({ docker: v.object({ Host: v.string(), SkipTLSVerify: v.optional(v.boolean()) }) }),
})

async function readCurrentContext(configDirectory: string): Promise<string | undefined> {
  const path = join(configDirectory, 'config.json')
  const text = await readIfThere(path)
  return text === undefined ? undefined : parse(configSchema, text, path).currentContext
}

/** Contexts lie in folders that are named by the hash of the context's name (docker/cli, cli/context/store). */
async function readContext(configDirectory: string, name: string): Promise<Endpoint> {
  const id = createHash('sha256').update(name).digest('hex')
  const path = join(configDirectory, 'contexts', 'meta', id, 'meta.json')
  const text = await readIfThere(path)
  if (text === undefined) {
    throw new UserError(`Docker context "${name}" does not exist in ${configDirectory}.`, {
      hint: 'See `docker context ls`.',
      exitCode: 2,
    })
  }
  const { Host, SkipTLSVerify } = parse(metaSchema, text, path).Endpoints.docker
  const tls = await readTls(join(configDirectory, 'contexts', 'tls', id, 'docker'), !SkipTLSVerify)
  return parseHost(Host, tls.ca || tls.cert ? tls : undefined)
}

function parse<Schema extends v.GenericSchema>(schema: Schema, text: string, path: string): v.InferOutput<Schema> {
  try {
    return v.parse(schema, JSON.parse(text))
  } catch (error) {
    throw new UserError(`${path} is not what Docker writes there.`, { cause: error, exitCode: 2 })
  }
}
