// The agent as a service: what it tells those who keep it running, from before it has its state folder until its end.
//
//   starting -> running -> stopping        /live    /ready    service manager
//   waits for the state folder             200      503
//   has it and polls                       200      200 while every part is well; READY, WATCHDOG
//   drains                                 200      503       STOPPING, WATCHDOG

import { Scope } from '../async/scope.ts'
import type { Logger } from '../logger.ts'
import { ServiceManager } from './notify.ts'
import type { Part, StatusServer } from './status.ts'

/** What must be known of a running agent. */
export interface Observed {
  /** What is wrong, part by part; undefined means well. */
  readonly ailments: Readonly<Record<string, string | undefined>>
}

export interface ServiceOptions {
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly pid: number
  /** `port` undefined: nothing is served. */
  readonly status: { readonly host: string; readonly port: number | undefined }
  readonly logger: Logger
}

export class Service implements AsyncDisposable {
  readonly #manager: ServiceManager
  readonly #scope = new Scope()
  readonly #stopping: AbortSignal
  #agent: Observed | undefined
  #server: StatusServer | undefined

  private constructor(options: ServiceOptions, stopping: AbortSignal) {
    this.#manager = new ServiceManager(options)
    this.#stopping = stopping
  }

  /** Opens /live and /ready. `stopping` is the agent's own: its abort is told to everybody who asks. Errors: startStatusServer. */
  static async start(options: ServiceOptions, stopping: AbortSignal): Promise<Service> {
    const service = new Service(options, stopping)
    const { host, port } = options.status
    if (port !== undefined) {
      // Loaded when it is wanted: node:http costs memory that most agents have no use for.
      const { startStatusServer } = await import('./status.ts')
      const parts = (): Readonly<Record<string, Part>> => service.#parts()
      service.#server = await startStatusServer({ host, port, parts }, service.#scope.signal)
      options.logger.info({ url: service.#server.url }, 'serving /live and /ready')
    }
    stopping.addEventListener('abort', () => service.#tellStopping(), { once: true })
    return service
  }

  /** Where /live and /ready are; undefined when nothing is served. */
  get url(): string | undefined {
    return this.#server?.url
  }

  /** The agent has its state folder and polls. */
  attach(agent: Observed): void {
    this.#agent = agent
    if (!this.#manager.isThere) return
    this.#scope.spawn(async signal => {
      if (!this.#stopping.aborted) await this.#manager.tellReady('polling', signal)
      await this.#manager.keepWatchdog(() => this.#isAlive(), signal)
    })
  }

  #tellStopping(): void {
    if (this.#manager.isThere) this.#scope.spawn(signal => this.#manager.tellStopping('draining', signal))
  }

  /**
   * That this runs at all shows that the event loop is not stuck. Polls that have ceased although the API answers are a
   * bug which a restart may cure; when it does not answer, or while draining, they have a reason.
   */
  #isAlive(): boolean {
    const { poll, api } = this.#agent?.ailments ?? {}
    return poll === undefined || api !== undefined || this.#stopping.aborted
  }

  #parts(): Readonly<Record<string, Part>> {
    if (!this.#agent) return { agent: { status: 'sick', detail: 'starting, or waiting for the state folder' } }
    const agent: Part = this.#stopping.aborted ? { status: 'sick', detail: 'stopping' } : { status: 'ok' }
    const parts = Object.entries(this.#agent.ailments).map(([name, detail]): [string, Part] => [
      name,
      detail === undefined ? { status: 'ok' } : { status: 'sick', detail },
    ])
    return { agent, ...Object.fromEntries(parts) }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#scope.cancel()
    await this.#server?.[Symbol.asyncDispose]()
    await this.#scope.join()
  }
}
