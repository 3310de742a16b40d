// dockerode publishes no types; these are the calls that we make. It is given a transport of our own as its modem.

declare module 'dockerode' {
  /** What dockerode's methods hand to their modem. */
  export interface DialOptions {
    readonly path: string
    readonly method: string
    readonly options?: Record<string, unknown>
    readonly authconfig?: unknown
    readonly file?: unknown
    readonly isStream?: boolean
  }

  export interface Modem {
    dial(options: DialOptions, callback: (error: Error | null, answer?: unknown) => void): void
  }

  interface Container {
    readonly id: string
    inspect(): Promise<unknown>
    start(options?: object): Promise<unknown>
    stop(options: object): Promise<unknown>
    kill(options: object): Promise<unknown>
    rename(options: object): Promise<unknown>
    remove(options: object): Promise<unknown>
    logs(options: object): Promise<unknown>
    putArchive(file: unknown, options: object): Promise<unknown>
    getArchive(options: object): Promise<unknown>
  }

  interface Image {
    inspect(): Promise<unknown>
    remove(options?: object): Promise<unknown>
  }

  export default class Docker {
    constructor(options: { readonly modem: Modem })
    createContainer(options: object): Promise<Container>
    createImage(auth: unknown, options: object): Promise<unknown>
    getContainer(id: string): Container
    getImage(name: string): Image
    getNetwork(name: string): { connect(options: object): Promise<unknown> }
    getEvents(options: object): Promise<unknown>
    listContainers(options: object): Promise<unknown>
    version(): Promise<unknown>
  }
}
