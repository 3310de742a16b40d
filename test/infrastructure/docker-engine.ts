// A second real engine of a test file's own, which may be killed, or be reached in another way, without harm to other tests.

import { execFile } from 'node:child_process'
import { join } from 'node:path'
import process from 'node:process'
import { promisify } from 'node:util'
import { busybox, type DockerSubject, dockerHost, makeDockerSubject } from './docker-subject.ts'

const run = promisify(execFile)
const engines = join(import.meta.dirname, '../support/engines')

export interface OwnEngineOptions {
  /** Also names its bridge and its control group. */
  readonly name: string
  /** The bridge's /24, such as `172.30.90`. */
  readonly subnet: string
  /** Further flags for dockerd. */
  readonly flags?: string
  /** Where its data lie, instead of where all engines of the tests do; it then starts without an image. */
  readonly home?: string
}

export class OwnEngine implements AsyncDisposable {
  readonly host: string
  readonly #environment: NodeJS.ProcessEnv

  static async start({ name, subnet, flags = '', home }: OwnEngineOptions): Promise<OwnEngine> {
    const environment = {
      ...process.env,
      RIGEL_DOCKER_NAME: name,
      RIGEL_DOCKER_SUBNET: subnet,
      ...(home === undefined ? {} : { RIGEL_ENGINES: home }),
      // Rules of the firewall are shared with the other engine; runs of this one need no network.
      RIGEL_DOCKER_FLAGS: `--iptables=false ${flags}`,
    }
    const { stdout } = await run(join(engines, 'docker.sh'), ['start'], { env: environment })
    const host = /^DOCKER_HOST=(.*)$/m.exec(stdout)?.[1] ?? ''
    const copy = 'docker -H "$1" save "$3" | docker -H "$2" load -q'
    if (home === undefined) await run('sh', ['-c', copy, 'sh', dockerHost, host, busybox])
    return new OwnEngine(host, environment)
  }

  private constructor(host: string, environment: NodeJS.ProcessEnv) {
    this.host = host
    this.#environment = environment
  }

  async do(verb: 'kill' | 'start' | 'stop'): Promise<void> {
    await run(join(engines, 'docker.sh'), [verb], { env: this.#environment })
  }

  /** A driver of this engine, by its socket unless `environment` says otherwise. */
  subject(environment: Readonly<Record<string, string>> = { DOCKER_HOST: this.host }): Promise<DockerSubject> {
    return makeDockerSubject({ environment, host: this.host })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.do('stop')
  }
}
