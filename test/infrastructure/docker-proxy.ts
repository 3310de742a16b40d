// A real server between the driver and the engine that loses, delays, hides and invents what tests tell it to.
//
// It speaks HTTP on a Unix socket and passes each call on to the test engine, but for calls that a rule is waiting for.

import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { dockerHost } from './docker-subject.ts'

/**
 * `lose`: the engine does it, the answer is cut off. `drop`: the call never arrives, the connection breaks.
 * `late`: the connection breaks, and the call arrives `ms` afterwards all the same. `hang`: the engine does it, no answer
 * ever comes. `swallow`: neither. `delay`: arrives after `ms`. `refuse`: answered with `status` by the proxy itself.
 * `mute`: the answer's head comes, its body never does. `tell`: calls a function, then goes on as `drop` (before) or
 * `lose` (after). `reword`: instead of the engine's answer, `around` which something may be done, comes a 500 with this message.
 */
export type Fault =
  | { readonly kind: 'lose' | 'drop' | 'hang' | 'swallow' | 'mute' }
  | { readonly kind: 'late' | 'delay'; readonly ms: number }
  | { readonly kind: 'refuse'; readonly status: number }
  | { readonly kind: 'tell'; readonly when: 'before' | 'after'; readonly tell: () => void }
  | { readonly kind: 'reword'; readonly message: string; readonly around: (call: () => Promise<void>) => Promise<void> }

interface Rule {
  readonly call: RegExp
  readonly fault: Fault
  left: number
}

export class DockerProxy implements AsyncDisposable {
  readonly #directory: string
  readonly #rules: Rule[] = []
  readonly #sockets = new Set<Socket>()
  readonly #late = new Set<Promise<void>>()
  readonly #server = createServer((incoming, outgoing) => void this.#serve(incoming, outgoing))
  /** `METHOD /path` of every call, without the version. */
  readonly calls: string[] = []
  /** Streams of events that are open now. */
  openEventStreams = 0

  static async start(): Promise<DockerProxy> {
    const proxy = new DockerProxy(await mkdtemp(join(tmpdir(), 'rigel-proxy-')))
    await proxy.listen()
    return proxy
  }

  private constructor(directory: string) {
    this.#directory = directory
    this.#server.on('connection', socket => {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
    })
  }

  get environment(): Readonly<Record<string, string>> {
    return { DOCKER_HOST: `unix://${join(this.#directory, 's')}` }
  }

  /** The next `times` calls that match `METHOD /path` meet this fault. */
  on(call: RegExp, fault: Fault, times = 1): void {
    this.#rules.push({ call, fault, left: times })
  }

  /** From now on every call is passed on. */
  heal(): void {
    this.#rules.length = 0
    this.cutAll()
  }

  count(call: RegExp): number {
    return this.calls.filter(one => call.test(one)).length
  }

  cutAll(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  /** Resolves when the calls that were to be late have arrived, and are answered. */
  async lateCalls(): Promise<void> {
    await Promise.all(this.#late)
  }

  async listen(): Promise<void> {
    this.#server.listen(join(this.#directory, 's'))
    await once(this.#server, 'listening')
  }

  /** As an engine that is down: nothing listens. */
  async down(): Promise<void> {
    this.#server.close()
    this.cutAll()
    await once(this.#server, 'close')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lateCalls()
    if (this.#server.listening) await this.down()
    await rm(this.#directory, { recursive: true, force: true })
  }

  async #serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const call = `${incoming.method} ${(incoming.url ?? '').replace(/^\/v[\d.]+/, '')}`
    this.calls.push(call)
    const rule = this.#rules.find(one => one.left > 0 && one.call.test(call))
    if (rule) rule.left -= 1
    const fault = rule?.fault
    switch (fault?.kind) {
      case undefined:
        return this.#forward(incoming, outgoing)
      case 'delay':
        await delay(fault.ms)
        return this.#forward(incoming, outgoing)
      case 'drop':
        return void incoming.socket.destroy()
      case 'swallow':
        return void incoming.resume()
      case 'refuse':
        incoming.resume()
        return void outgoing
          .writeHead(fault.status, { 'content-type': 'text/plain' })
          .end('the proxy is in a bad mood\n')
      case 'tell':
        if (fault.when === 'after') {
          const answer = await send(incoming, await readAll(incoming))
          answer.destroy()
        }
        fault.tell()
        return void incoming.socket.destroy()
      case 'reword':
        return fault.around(async () => {
          const answer = await send(incoming, await readAll(incoming))
          answer.resume()
          outgoing.writeHead(500, { 'content-type': 'application/json' })
          outgoing.end(JSON.stringify({ message: fault.message }))
        })
      case 'late': {
        const work = this.#sendLate(incoming, fault.ms)
        this.#late.add(work)
        return
      }
      case 'mute':
      case 'lose':
      case 'hang': {
        const answer = await send(incoming, await readAll(incoming))
        if (fault.kind === 'mute') outgoing.writeHead(200, { 'content-type': 'application/json' }).flushHeaders()
        if (fault.kind === 'lose') incoming.socket.destroy()
        answer.destroy()
      }
    }
  }

  #forward(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const isEvents = incoming.url?.includes('/events') ?? false
    const passed = request(
      { ...target, method: incoming.method, path: incoming.url, headers: incoming.headers, agent: false },
      answer => {
        if (isEvents) this.openEventStreams += 1
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
        // An event stream says nothing until something happens.
        outgoing.flushHeaders()
        answer.pipe(outgoing)
        answer.once('error', () => outgoing.destroy())
      },
    )
    passed.on('error', () => incoming.socket.destroy())
    outgoing.once('close', () => {
      if (isEvents) this.openEventStreams -= 1
      passed.destroy()
    })
    incoming.pipe(passed)
  }

  async #sendLate(incoming: IncomingMessage, ms: number): Promise<void> {
    const body = await readAll(incoming)
    incoming.socket.destroy()
    await delay(ms)
    const answer = await send(incoming, body)
    answer.resume()
  }
}

const target = { socketPath: dockerHost.replace(/^unix:\/\//, '') }

async function readAll(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of message) chunks.push(chunk)
  return Buffer.concat(chunks)
}

async function send(incoming: IncomingMessage, body: Buffer): Promise<IncomingMessage> {
  const { method, url, headers } = incoming
  const sent = request({ ...target, method, path: url, headers, agent: false })
  sent.end(body)
  const [answer] = await once(sent, 'response')
  return answer
}
