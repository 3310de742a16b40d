// Reaches an engine over ssh: one ssh process passes a local socket on to the engine's socket over there.
//
// One process serves any number of connections, and needs neither a docker command over there nor a session for each
// call (sshd allows ten). It runs the user's own ssh, so keys, agents, jump hosts and known hosts are as configured.

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sleep } from '../async/sleep.ts'
import type { SshEndpoint } from './docker-endpoint.ts'
import { EngineError } from './docker-transport.ts'

const connectMs = 20_000

export class Tunnel {
  readonly #endpoint: SshEndpoint
  readonly #command: readonly string[]
  #opened: Promise<Opened> | undefined

  /** `command` is ssh with the user's own options, by default just `ssh`. */
  constructor(endpoint: SshEndpoint, command: readonly string[] = ['ssh']) {
    this.#endpoint = endpoint
    this.#command = command
  }

  /** Path of the local socket, once the tunnel stands. Opens it again when it has broken. */
  async open(signal: AbortSignal): Promise<string> {
    for (;;) {
      // Those who come while it is being opened wait for the same one.
      const opening = this.#opened ?? this.#start()
      this.#opened = opening
      const { child, socket } = await opening.catch(error => {
        if (this.#opened === opening) this.#opened = undefined
        throw error
      })
      signal.throwIfAborted()
      if (child.exitCode === null && child.signalCode === null) return socket
      if (this.#opened === opening) this.#opened = undefined
    }
  }

  async close(): Promise<void> {
    const opened = await this.#opened?.catch(() => undefined)
    this.#opened = undefined
    if (!opened) return
    opened.child.kill('SIGTERM')
    await rm(opened.directory, { recursive: true, force: true })
  }

  async #start(): Promise<Opened> {
    const directory = await mkdtemp(join(tmpdir(), 'rigel-ssh-'))
    const socket = join(directory, 's')
    const { destination, port, remoteSocket } = this.#endpoint
    const [program = 'ssh', ...options] = this.#command
    const sshOptions = ['BatchMode=yes', 'ExitOnForwardFailure=yes', 'ServerAliveInterval=15'].flatMap(o => ['-o', o])
    const portOption = port === undefined ? [] : ['-p', String(port)]
    // "cat" ends when its input does: so the tunnel ends with the agent, however that ended.
    const rest = ['-T', '-L', `${socket}:${remoteSocket}`, '--', destination, 'cat']
    const child = spawn(program, [...options, ...sshOptions, ...portOption, ...rest], {
      stdio: ['pipe', 'ignore', 'pipe'],
    })
    child.stdin?.on('error', () => {
      // The tunnel has ended; whoever opens it next sees so.
    })
    let words = ''
    child.stderr?.on('data', chunk => (words = `${words}${chunk}`.slice(-1_000)))
    child.once('exit', () => void rm(directory, { recursive: true, force: true }))
    const failed = new Promise<never>((_, reject) => {
      child.once('error', reject)
      child.once('exit', code => reject(new Error(words.trim() || `ssh ended with code ${code}`)))
    })
    const enough = new AbortController()
    try {
      await Promise.race([failed, waitForSocket(socket, enough.signal)])
    } catch (cause) {
      child.kill('SIGTERM')
      throw new EngineError(
        'unreachable',
        `Could not reach the Docker engine at ssh://${destination}: ${messageOf(cause)}`,
        { cause },
      )
    } finally {
      enough.abort()
    }
    // Nothing waits for these any more, and they must not keep the agent alive.
    failed.catch(() => undefined)
    child.unref()
    for (const stream of [child.stdin, child.stderr]) unref(stream)
    return { child, socket, directory }
  }
}

interface Opened {
  readonly child: ChildProcess
  readonly socket: string
  readonly directory: string
}

async function waitForSocket(path: string, stop: AbortSignal): Promise<void> {
  const signal = AbortSignal.any([stop, AbortSignal.timeout(connectMs)])
  while (!signal.aborted) {
    const found = await stat(path).catch(() => undefined)
    if (found) return
    await sleep(50, signal)
  }
  throw new Error(`no connection within ${connectMs / 1000} s`)
}

function unref(stream: unknown): void {
  if (typeof stream === 'object' && stream !== null && 'unref' in stream && typeof stream.unref === 'function') {
    stream.unref()
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
