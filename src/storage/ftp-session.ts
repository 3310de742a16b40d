// One session with an FTP server: basic-ftp logs in and speaks on the control connection, the data connections are made here.
//
// basic-ftp begins TLS on a data connection as soon as it is open; pyftpdlib, and others that wait for the command, take
// what arrives before it for an error and cut. Here it begins with the server's 150, as in Python's ftplib and curl.

import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import type { Client, FTPContext, FTPResponse } from 'basic-ftp'
import { TransientError } from './source.ts'
import { StorageError } from './storage.ts'

const silenceMs = 30_000

export interface FtpPlace {
  readonly host: string
  readonly port: number
  readonly username: string | undefined
  readonly password: string | undefined
  readonly account: string | undefined
  readonly tls: 'none' | 'explicit' | 'implicit'
  readonly verify: boolean
  readonly caFile: string | undefined
}

/** A data connection that is open. */
export interface Transfer {
  readonly socket: Socket
  /** Resolves when the server has said that it is complete, rejects with what else it says. */
  readonly finished: Promise<void>
}

export class FtpSession {
  readonly #client: Client
  /** The server has MLSD, the listing that is made for programs. */
  readonly hasMlsd: boolean
  #abort: (() => void) | undefined

  private constructor(client: Client, hasMlsd: boolean) {
    this.#client = client
    this.hasMlsd = hasMlsd
  }

  static async open(place: FtpPlace, signal: AbortSignal): Promise<FtpSession> {
    const { Client } = await import('basic-ftp')
    const client = new Client(silenceMs)
    const abort = () => client.close()
    signal.addEventListener('abort', abort)
    try {
      await client.access({
        host: place.host,
        port: place.port,
        user: place.username ?? 'anonymous',
        password: place.password ?? 'anonymous@',
        secure: place.tls === 'explicit' ? true : place.tls === 'implicit' ? 'implicit' : false,
        secureOptions: {
          rejectUnauthorized: place.verify,
          ...(place.caFile === undefined ? {} : { ca: await readFile(place.caFile, 'utf8') }),
        },
      })
      if (place.account !== undefined) await client.send(`ACCT ${place.account}`)
      return new FtpSession(client, (await client.features()).has('MLST'))
    } catch (error) {
      client.close()
      signal.throwIfAborted()
      throw ftpError('Logging in', error)
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }

  get isClosed(): boolean {
    return this.#client.closed
  }

  /** Until `unwatch`, the session ends when the signal is aborted. */
  watch(signal: AbortSignal): void {
    signal.throwIfAborted()
    const abort = () => this.close()
    signal.addEventListener('abort', abort, { once: true })
    this.#abort = () => signal.removeEventListener('abort', abort)
  }

  unwatch(): void {
    this.#abort?.()
    this.#abort = undefined
  }

  close(): void {
    this.unwatch()
    this.#client.close()
  }

  /** A command without data, such as MKD; gives the server's answer, also one that says no. */
  async command(words: string): Promise<FTPResponse> {
    try {
      return await this.#client.sendIgnoringError(checkLine(words))
    } catch (error) {
      throw ftpError(words.split(' ')[0] ?? '', error)
    }
  }

  /** Sends a command that moves data (RETR, MLSD, STOR), from `offset` on. */
  async transfer(command: string, offset: number): Promise<Transfer> {
    checkLine(command)
    const { ftp } = this.#client
    let raw: Socket | undefined
    try {
      raw = await openData(ftp)
      if (offset > 0) await ftp.request(`REST ${offset}`)
      return await startTransfer(ftp, raw, command)
    } catch (error) {
      raw?.destroy()
      throw ftpError(`"${command}"`, error)
    }
  }
}

/** One line is one command: a name with a line break in it would be two. */
function checkLine(line: string): string {
  if (/[\r\n\0]/.test(line)) throw new StorageError(`The name ${JSON.stringify(line)} has a line break in it`)
  return line
}

/** To the host of the control connection, whatever address the server names. */
async function openData(ftp: FTPContext): Promise<Socket> {
  const host = ftp.socket.remoteAddress ?? ''
  const answer = await ftp.request('EPSV').catch(() => ftp.request('PASV'))
  const numbers = /\d+,\d+,\d+,\d+,(\d+),(\d+)/.exec(answer.message)
  const port = numbers ? Number(numbers[1]) * 256 + Number(numbers[2]) : Number(/\|(\d+)\|/.exec(answer.message)?.[1])
  if (!Number.isInteger(port)) throw new StorageError(`The server names no port for data: ${answer.message}`)
  const socket = connect({ host, port })
  socket.setTimeout(silenceMs, () => socket.destroy(new TransientError('The server has been silent for 30 s')))
  await once(socket, 'connect')
  return socket
}

function startTransfer(ftp: FTPContext, raw: Socket, command: string): Promise<Transfer> {
  return new Promise((resolve, reject) => {
    const finished = Promise.withResolvers<void>()
    // Whoever reads the data learns of it there; the promise may then be left alone.
    finished.promise.catch(() => undefined)
    const fail = (error: unknown) => {
      finished.reject(error)
      reject(error)
    }
    ftp
      .handle(command, (answer, task) => {
        if (answer instanceof Error) task.reject(answer)
        else if (answer.code < 200) resolve({ socket: secure(ftp, raw), finished: finished.promise })
        else if (answer.code < 300) task.resolve(undefined)
        else task.reject(refusalOf(answer))
      })
      .then(() => finished.resolve(), fail)
  })
}

function secure(ftp: FTPContext, raw: Socket): Socket {
  if (!ftp.hasTLS) return raw
  // Servers take the control connection's session for the proof that it is still us.
  const session = ftp.tlsSessionStore ?? sessionOf(ftp.socket)
  const socket = connectTls({ ...ftp.tlsOptions, socket: raw, ...(session ? { session } : {}) })
  socket.on('session', next => {
    ftp.tlsSessionStore = next
  })
  return socket
}

function sessionOf(socket: Socket | TLSSocket): Buffer | undefined {
  return 'getSession' in socket ? socket.getSession() : undefined
}

/** Codes of the 4xx kind may pass, but 450 and 451 often mean "not this file". */
function refusalOf({ code, message }: FTPResponse): Error {
  const passing = code === 421 || code === 425 || code === 426
  return passing ? new TransientError(message) : new StorageError(message)
}

export function ftpError(what: string, error: unknown): unknown {
  if (error instanceof StorageError || error instanceof TransientError) {
    const sentence = `${what} was refused (${error.message.trim()})`
    return error instanceof StorageError ? new StorageError(sentence) : new TransientError(sentence)
  }
  // basic-ftp's FTPError, told by its number, which system errors do not have.
  if (error instanceof Error && 'code' in error && typeof error.code === 'number') {
    return ftpError(what, refusalOf({ code: error.code, message: error.message }))
  }
  if (error instanceof Error && /^Timeout|closed the connection|Server sent FIN/i.test(error.message)) {
    return new TransientError(`${what} broke off (${error.message})`)
  }
  return error
}
