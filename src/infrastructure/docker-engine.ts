// The calls that we make to one Docker engine, each with a deadline, each answer read through a schema.
//
// In: names, ids and bodies. Out: plain values; "not there" is undefined, every other trouble an EngineError. Deadlines
// are short for what the engine answers from memory; nothing is repeated here, for only callers know what that does.

import { Readable } from 'node:stream'
import Docker from 'dockerode'
import * as v from 'valibot'
import {
  type ContainerInfo,
  type ContainerSummary,
  containerSchema,
  type ImageInfo,
  imageSchema,
  listSchema,
  versionSchema,
} from './docker-answers.ts'
import type { Endpoint } from './docker-endpoint.ts'
import { type CallLimits, EngineError, isRefusal, Transport } from './docker-transport.ts'
import type { Tunnel } from './docker-tunnel.ts'

/** Milliseconds. A create or start takes long on a busy disk; callers look meanwhile whether it came about. */
const deadline = { look: 5_000, stream: 5_000, step: 15_000, change: 60_000, upload: 600_000 } as const

/** The newest API whose answers we know (Docker 28); an older engine is spoken to in its own. */
const newestApi = '1.51'

export type RegistryAuth =
  | { readonly username: string; readonly password: string; readonly serveraddress: string }
  | { readonly identitytoken: string; readonly serveraddress: string }

export interface LogQuery {
  readonly follow: boolean
  readonly timestamps: boolean
  /** Unix seconds with up to nine decimals; messages of this very instant are included. */
  readonly since?: string | undefined
  /** Only so many of the last lines. */
  readonly tail?: number
}

export class DockerEngine {
  readonly baseUrl: string
  readonly #transport: Transport
  readonly #tunnel: Tunnel | undefined
  #version: string | undefined
  #asking: Promise<string> | undefined
  readonly #closed = new AbortController()
  #isPodman = false

  constructor(endpoint: Endpoint, tunnel: Tunnel | undefined) {
    this.baseUrl = endpoint.baseUrl
    this.#tunnel = tunnel
    this.#transport = new Transport(endpoint, async signal => {
      if (endpoint.kind === 'socket') return endpoint.path
      if (!tunnel) throw new Error('an engine behind ssh needs a tunnel')
      return await tunnel.open(signal)
    })
  }

  /** Podman speaks Docker's API, with some ways of its own. Known once the engine has been asked for anything. */
  get isPodman(): boolean {
    return this.#isPodman
  }

  /** The engine's own version, such as `20.10.24+dfsg1`. The first call of all: it settles which API is spoken. */
  async version(signal: AbortSignal): Promise<string> {
    if (this.#version !== undefined) return this.#version
    signal.throwIfAborted()
    // Asked once for all who wait for it: Podman starts programs to answer, one caller after the other.
    this.#asking ??= this.#askVersion().finally(() => (this.#asking = undefined))
    const { promise, reject } = Promise.withResolvers<never>()
    const onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    return await Promise.race([this.#asking, promise]).finally(() => signal.removeEventListener('abort', onAbort))
  }

  async #askVersion(): Promise<string> {
    const what = 'ask the Docker engine for its version'
    const docker = this.#docker({ what, deadlineMs: deadline.step, signal: this.#closed.signal })
    const answer = v.parse(versionSchema, await docker.version())
    this.#transport.pathPrefix = `/v${olderApi(answer.ApiVersion, newestApi)}`
    this.#isPodman = answer.Components.some(({ Name }) => Name === 'Podman Engine')
    this.#version = answer.Version
    return answer.Version
  }

  /** Gives the id. Refusals: 404 for a missing image, 409 for a name that is taken. */
  async create(name: string, body: Readonly<Record<string, unknown>>, signal: AbortSignal): Promise<string> {
    const docker = await this.#call(`create container "${name}"`, deadline.change, signal)
    const container = await docker.createContainer({ _query: { name }, _body: body })
    return v.parse(v.string(), container.id)
  }

  /** By id or name. Undefined: there is no such container. */
  async inspect(reference: string, signal: AbortSignal): Promise<ContainerInfo | undefined> {
    const docker = await this.#call(`look at container ${short(reference)}`, deadline.look, signal)
    const answer = await unlessMissing(docker.getContainer(reference).inspect())
    return answer === undefined ? undefined : v.parse(containerSchema, answer)
  }

  /** Does nothing when it runs already; but starts a second time what has ended. */
  async start(name: string, signal: AbortSignal): Promise<void> {
    const docker = await this.#call(`start container "${name}"`, deadline.change, signal)
    await docker.getContainer(name).start()
  }

  /** Asks it to end and forces it after `seconds`; answers when it has ended. False: there is no such container. */
  async stop(id: string, seconds: number, signal: AbortSignal): Promise<boolean> {
    const limit = Math.ceil(seconds * 1000) + deadline.step
    const docker = await this.#call(`stop container ${short(id)}`, limit, signal)
    return (await unlessMissing(docker.getContainer(id).stop({ t: Math.ceil(seconds) }))) !== undefined
  }

  /** SIGKILL. False: it is not there. A refusal with 409 says that it does not run. */
  async kill(id: string, signal: AbortSignal): Promise<boolean> {
    const docker = await this.#call(`kill container ${short(id)}`, deadline.step, signal)
    return (await unlessMissing(docker.getContainer(id).kill({ signal: 'SIGKILL' }))) !== undefined
  }

  async rename(id: string, name: string, signal: AbortSignal): Promise<void> {
    const docker = await this.#call(`rename container ${short(id)}`, deadline.step, signal)
    await docker.getContainer(id).rename({ name })
  }

  /** With its anonymous volumes. Does nothing when it is gone, or on its way; refuses with 409 what runs. */
  async remove(id: string, signal: AbortSignal): Promise<void> {
    const docker = await this.#call(`remove container ${short(id)}`, deadline.change, signal)
    try {
      await unlessMissing(docker.getContainer(id).remove({ v: true }))
    } catch (error) {
      if (isRefusal(error, 409) && String(error).includes('already in progress')) return
      throw error
    }
  }

  /** Containers that have all these labels (`key` or `key=value`); without `all` only what runs. */
  async list(labels: readonly string[], all: boolean, signal: AbortSignal): Promise<readonly ContainerSummary[]> {
    const docker = await this.#call('list containers', deadline.look, signal)
    return v.parse(listSchema, await docker.listContainers({ all, filters: { label: labels } }))
  }

  async logs(id: string, query: LogQuery, signal: AbortSignal): Promise<Readable> {
    const docker = await this.#call(`read the output of container ${short(id)}`, deadline.stream, signal)
    const answer = await docker.getContainer(id).logs({ ...query, stdout: true, stderr: true })
    return asStream(answer)
  }

  /** Unpacks a tar archive at a folder that exists. */
  async upload(
    id: string,
    { path, archive }: { readonly path: string; readonly archive: Readable },
    signal: AbortSignal,
  ): Promise<void> {
    const docker = await this.#call(`send files to container ${short(id)}`, deadline.upload, signal)
    await docker.getContainer(id).putArchive(archive, { path })
  }

  /** A tar archive of the file, or undefined when there is no such file. */
  async download(id: string, path: string, signal: AbortSignal): Promise<Readable | undefined> {
    const docker = await this.#call(`read ${path} of container ${short(id)}`, deadline.step, signal)
    const answer = await unlessMissing(docker.getContainer(id).getArchive({ path }))
    return answer === undefined ? undefined : asStream(answer)
  }

  async connectNetwork(network: string, id: string, signal: AbortSignal): Promise<void> {
    const docker = await this.#call(`connect container ${short(id)} to network "${network}"`, deadline.step, signal)
    await docker.getNetwork(network).connect({ Container: id })
  }

  async inspectImage(reference: string, signal: AbortSignal): Promise<ImageInfo | undefined> {
    const docker = await this.#call(`look at image "${reference}"`, deadline.look, signal)
    const answer = await unlessMissing(docker.getImage(reference).inspect())
    return answer === undefined ? undefined : v.parse(imageSchema, answer)
  }

  async removeImage(reference: string, signal: AbortSignal): Promise<void> {
    const docker = await this.#call(`remove image "${reference}"`, deadline.change, signal)
    await unlessMissing(docker.getImage(reference).remove())
  }

  /** JSON lines of progress; a line with `error` is a failure. `deadlineMs`: until the first word. */
  async pull(
    image: { readonly repository: string; readonly tag: string },
    auth: RegistryAuth | undefined,
    limits: { readonly deadlineMs: number; readonly signal: AbortSignal },
  ): Promise<Readable> {
    const docker = await this.#call(`pull image "${image.repository}"`, limits.deadlineMs, limits.signal)
    return asStream(await docker.createImage(auth, { fromImage: image.repository, tag: image.tag }))
  }

  /** JSON lines of how containers that have this label (`key=value`) end, from now on. Podman has names of its own. */
  async events(mark: string, signal: AbortSignal): Promise<Readable> {
    const docker = await this.#call('listen to the events of the Docker engine', deadline.stream, signal)
    const ends = ['die', 'died', 'destroy', 'remove', 'kill', 'oom']
    const filters = { type: ['container'], label: [mark], event: ends }
    return asStream(await docker.getEvents({ filters }))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort(new Error('the connection to the Docker engine was closed'))
    this.#transport.close()
    await this.#tunnel?.close()
  }

  async #call(what: string, deadlineMs: number, signal: AbortSignal): Promise<Docker> {
    await this.version(signal)
    return this.#docker({ what, deadlineMs, signal })
  }

  #docker(limits: CallLimits): Docker {
    return new Docker({ modem: this.#transport.modem(limits) })
  }
}

async function unlessMissing(answer: Promise<unknown>): Promise<unknown> {
  try {
    return (await answer) ?? true
  } catch (error) {
    if (isRefusal(error, 404)) return undefined
    throw error
  }
}

/** dockerode asks for some streams as whole answers. */
function asStream(answer: unknown): Readable {
  if (answer instanceof Readable) return answer
  if (Buffer.isBuffer(answer)) return Readable.from(answer.length > 0 ? [answer] : [])
  throw new EngineError('lost', 'The Docker engine answered with something else than a stream.', {})
}

function short(reference: string): string {
  return /^[0-9a-f]{64}$/.test(reference) ? reference.slice(0, 12) : `"${reference}"`
}

function olderApi(one: string, other: string): string {
  const [majorA = 0, minorA = 0] = one.split('.').map(Number)
  const [majorB = 0, minorB = 0] = other.split('.').map(Number)
  return majorA < majorB || (majorA === majorB && minorA < minorB) ? one : other
}
