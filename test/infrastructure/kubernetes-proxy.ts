// A real server between the driver and the API server that loses, delays, hides and cuts what tests tell it to.
//
// It speaks plain HTTP on the loopback and passes each call on with the credentials of an administrator, but for calls that
// a rule is waiting for.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { Agent, type RequestOptions, request } from 'node:https'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { KubeConfig } from '@kubernetes/client-node'
import { kubeconfig } from './kubernetes-subject.ts'

/**
 * `lose`: the API server does it, the answer is cut off. `drop`: the call never arrives, the connection breaks. `late`: the
 * connection breaks, and the call arrives `ms` afterwards all the same. `hang`: it is done, no answer ever comes. `refuse`:
 * answered with `status` by the proxy itself. `tell`: calls a function, then goes on as `drop` (before) or `lose` (after).
 * `mute`: the head of the answer comes, nothing more.
 */
export type Fault =
  | { readonly kind: 'lose' | 'drop' | 'hang' | 'mute' }
  | { readonly kind: 'late'; readonly ms: number }
  | { readonly kind: 'refuse'; readonly status: number; readonly headers?: Readonly<Record<string, string>> }
  | { readonly kind: 'tell'; readonly when: 'before' | 'after'; readonly tell: () => void }

interface Rule {
  readonly call: RegExp
  readonly fault: Fault
  left: number
}

export class KubernetesProxy implements AsyncDisposable {
  readonly #directory: string
  readonly #upstream: URL
  readonly #credentials: RequestOptions
  readonly #agent = new Agent({ keepAlive: true })
  readonly #rules: Rule[] = []
  readonly #sockets = new Set<Socket>()
  readonly #watches = new Set<Socket>()
  readonly #late = new Set<Promise<void>>()
  readonly #server = createServer((incoming, outgoing) => void this.#serve(incoming, outgoing))
  /** `METHOD /path?query` of every call. */
  readonly calls: string[] = []

  static async start(): Promise<KubernetesProxy> {
    const config = new KubeConfig()
    config.loadFromFile(kubeconfig)
    const credentials: RequestOptions = {}
    await config.applyToHTTPSOptions(credentials)
    const directory = await mkdtemp(join(tmpdir(), 'rigel-proxy-'))
    const proxy = new KubernetesProxy(directory, new URL(config.getCurrentCluster()?.server ?? ''), credentials)
    proxy.#server.listen(0, '127.0.0.1')
    await once(proxy.#server, 'listening')
    const bound = proxy.#server.address()
    assert.ok(typeof bound === 'object' && bound)
    const { port } = bound
    const cluster = { server: `http://127.0.0.1:${port}`, 'insecure-skip-tls-verify': true }
    const text = JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'proxy',
      clusters: [{ name: 'proxy', cluster }],
      users: [{ name: 'nobody', user: {} }],
      contexts: [{ name: 'proxy', context: { cluster: 'proxy', user: 'nobody' } }],
    })
    await writeFile(proxy.environment.KUBECONFIG, text, { mode: 0o600 })
    return proxy
  }

  private constructor(directory: string, upstream: URL, credentials: RequestOptions) {
    this.#directory = directory
    this.#upstream = upstream
    const { ca, cert, key } = credentials
    this.#credentials = { ca, cert, key }
    this.#server.on('connection', socket => {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
    })
  }

  get environment(): { readonly KUBECONFIG: string } {
    return { KUBECONFIG: join(this.#directory, 'kubeconfig') }
  }

  /** The next `times` calls that match `METHOD /path?query` meet this fault. */
  on(call: RegExp, fault: Fault, times = 1): void {
    this.#rules.push({ call, fault, left: times })
  }

  /** No faults any more. */
  heal(): void {
    this.#rules.length = 0
  }

  /** The kubeconfig as a block would hold it; its context is `proxy`. */
  async readConfig(): Promise<Record<string, unknown>> {
    return JSON.parse(await readFile(this.environment.KUBECONFIG, 'utf8'))
  }

  count(call: RegExp): number {
    return this.calls.filter(one => call.test(one)).length
  }

  cutWatches(): void {
    for (const socket of this.#watches) socket.destroy()
  }

  cutAll(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#late)
    this.#server.close()
    this.cutAll()
    await once(this.#server, 'close')
    this.#agent.destroy()
    await rm(this.#directory, { recursive: true, force: true })
  }

  async #serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const call = `${incoming.method} ${incoming.url ?? ''}`
    this.calls.push(call)
    const rule = this.#rules.find(one => one.left > 0 && one.call.test(call))
    if (rule) rule.left -= 1
    const fault = rule?.fault
    switch (fault?.kind) {
      case undefined:
        return this.#forward(incoming, outgoing)
      case 'drop':
        return void incoming.socket.destroy()
      case 'refuse':
        incoming.resume()
        return void outgoing.writeHead(fault.status, { 'content-type': 'text/plain', ...fault.headers }).end('no\n')
      case 'tell': {
        if (fault.when === 'after') (await this.#send(incoming, await readAll(incoming))).resume()
        fault.tell()
        return void incoming.socket.destroy()
      }
      case 'late':
        this.#late.add(this.#sendLate(incoming, fault.ms))
        return
      case 'mute':
      case 'lose':
      case 'hang': {
        const answer = await this.#send(incoming, await readAll(incoming))
        answer.resume()
        if (fault.kind === 'mute') outgoing.writeHead(200, { 'content-type': 'application/json' }).flushHeaders()
        if (fault.kind === 'lose') incoming.socket.destroy()
      }
    }
  }

  #forward(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const isWatch = incoming.url?.includes('watch=true') ?? false
    const passed = request(this.#target(incoming), answer => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
      outgoing.flushHeaders()
      answer.pipe(outgoing)
      answer.once('error', () => outgoing.destroy())
    })
    if (isWatch) this.#watches.add(incoming.socket)
    passed.on('error', () => incoming.socket.destroy())
    outgoing.once('close', () => {
      this.#watches.delete(incoming.socket)
      passed.destroy()
    })
    incoming.pipe(passed)
  }

  #target({ method, url, headers }: IncomingMessage): RequestOptions {
    const { hostname, port, host } = this.#upstream
    const agent = this.#agent
    return { ...this.#credentials, hostname, port, method, path: url, headers: { ...headers, host }, agent }
  }

  async #send(incoming: IncomingMessage, body: Buffer): Promise<IncomingMessage> {
    const sent = request(this.#target(incoming))
    sent.end(body)
    const [answer] = await once(sent, 'response')
    return answer
  }

  async #sendLate(incoming: IncomingMessage, ms: number): Promise<void> {
    const body = await readAll(incoming)
    incoming.socket.destroy()
    await delay(ms)
    const answer = await this.#send(incoming, body)
    answer.resume()
  }
}

async function readAll(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of message) chunks.push(chunk)
  return Buffer.concat(chunks)
}
