// Tells a service manager (systemd, or whoever made NOTIFY_SOCKET) how we are: ready, stopping, and still alive.
//
// Node has no Unix datagram sockets, so the words go through the system's systemd-notify. Without NOTIFY_SOCKET nothing
// is done. Nothing here can fail the agent: what could not be said is logged once.

import { spawn } from 'node:child_process'

import { sleep } from '../async/sleep.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'

export interface ServiceManagerOptions {
  /** Our environment, for NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID and PATH. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Process id of the agent. */
  readonly pid: number
  readonly logger: Logger
}

/** systemd-notify waits until the manager has taken the message; a manager that does not is given up, in milliseconds. */
const patienceMs = 5_000

export class ServiceManager {
  readonly #options: ServiceManagerOptions
  #hasComplained = false

  constructor(options: ServiceManagerOptions) {
    this.#options = options
  }

  /** Somebody listens. */
  get isThere(): boolean {
    return Boolean(this.#options.environment.NOTIFY_SOCKET)
  }

  /** How long the manager waits for a sign of life, in milliseconds; undefined when it waits for none of ours. */
  get watchdogMs(): number | undefined {
    const { WATCHDOG_USEC, WATCHDOG_PID } = this.#options.environment
    const microseconds = Number(WATCHDOG_USEC)
    if (!this.isThere || !(microseconds > 0)) return undefined
    // Meant for another process, whose environment we have inherited.
    if (WATCHDOG_PID && Number(WATCHDOG_PID) !== this.#options.pid) return undefined
    return microseconds / 1000
  }

  /** `status` is a line for `systemctl status`. */
  async tellReady(status: string, signal: AbortSignal): Promise<void> {
    await this.#tell(['READY=1', `STATUS=${oneLine(status)}`], signal)
  }

  async tellStopping(status: string, signal: AbortSignal): Promise<void> {
    await this.#tell(['STOPPING=1', `STATUS=${oneLine(status)}`], signal)
  }

  async tellStatus(status: string, signal: AbortSignal): Promise<void> {
    await this.#tell([`STATUS=${oneLine(status)}`], signal)
  }

  /**
   * Gives a sign of life twice in each watchdog interval while `isAlive` says so, until the signal. What is not alive
   * stays silent, and the manager ends and starts us again.
   */
  async keepWatchdog(isAlive: () => boolean, signal: AbortSignal): Promise<void> {
    const everyMs = this.watchdogMs
    if (everyMs === undefined) return
    while (!signal.aborted) {
      if (isAlive()) await this.#tell(['WATCHDOG=1'], signal)
      await sleep(everyMs / 2, signal)
    }
  }

  async #tell(words: readonly string[], signal: AbortSignal): Promise<void> {
    if (!this.isThere) return
    try {
      await this.#run(words, AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]))
    } catch (error) {
      if (signal.aborted || this.#hasComplained) return
      this.#hasComplained = true
      this.#options.logger.warn(
        { words, reason: describeError(error) },
        'could not notify the service manager; is systemd-notify installed?',
      )
    }
  }

  /**
   * Waits for systemd-notify, and not with its `--no-block`: the manager finds out who speaks by looking at the sender's
   * process, and an unprivileged sender that is gone already is not believed (systemd-notify(1)).
   */
  #run(words: readonly string[], signal: AbortSignal): Promise<void> {
    const { environment, pid } = this.#options
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const child = spawn('systemd-notify', [`--pid=${pid}`, ...words], {
      env: { PATH: environment.PATH, NOTIFY_SOCKET: environment.NOTIFY_SOCKET },
      stdio: 'ignore',
      signal,
      killSignal: 'SIGKILL',
    })
    child.once('error', reject)
    child.once('exit', (code, signalName) => {
      if (code === 0) resolve()
      else reject(new Error(`systemd-notify ended with ${code ?? signalName}`))
    })
    return promise
  }
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, ' ').trim()
}
