// Finds the engine that this agent is pointed at, and puts together what the driver does with it.

import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Logger } from '../logger.ts'
import { resolveEndpoint } from './docker-endpoint.ts'
import { DockerEngine } from './docker-engine.ts'
import { EndWatch } from './docker-events.ts'
import { PulledImages } from './docker-images.ts'
import { Pulls } from './docker-pull.ts'
import { ImageSupply } from './docker-supply.ts'
import { Tunnel } from './docker-tunnel.ts'

export interface ConnectionOptions {
  /** Holds one folder per run, 0700, on the disk of the journal, which makes and removes them. */
  readonly runsDirectory: string
  readonly logger: Logger
  /** The agent's own environment: DOCKER_HOST, DOCKER_CONTEXT, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH, DOCKER_CONFIG. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** A pull without progress for so long is given up; default 60 s. */
  readonly pullStallSeconds?: number
  /** Program and options for engines behind ssh; default `ssh`. */
  readonly sshCommand?: readonly string[]
}

export interface Connected {
  readonly engine: DockerEngine
  readonly watch: EndWatch
  readonly supply: ImageSupply
  readonly images: PulledImages
}

/** Reads where the engine is, and asks it nothing yet. Throws an error that says what is wrong with that place. */
export async function openConnection(options: ConnectionOptions): Promise<Connected> {
  const { environment, logger, runsDirectory, sshCommand, pullStallSeconds = 60 } = options
  const configDirectory = environment.DOCKER_CONFIG || join(environment.HOME || homedir(), '.docker')
  const endpoint = await resolveEndpoint({
    host: environment.DOCKER_HOST,
    context: environment.DOCKER_CONTEXT,
    tlsVerify: environment.DOCKER_TLS_VERIFY,
    certPath: environment.DOCKER_CERT_PATH,
    configDirectory,
  })
  const engine = new DockerEngine(endpoint, endpoint.kind === 'ssh' ? new Tunnel(endpoint, sshCommand) : undefined)
  const pulls = new Pulls({ engine, logger, stallMs: pullStallSeconds * 1000 })
  const images = new PulledImages(join(dirname(runsDirectory), 'docker-images.json'), engine, logger)
  const supply = new ImageSupply({
    engine,
    pulls,
    images,
    logger,
    configDirectory,
    environment,
  })
  return { engine, watch: new EndWatch(engine, logger), supply, images }
}
