// Sees to it that the engine has a run's image: by the block's pull policy, with the right login, noting what is ours.
//
// In: the image and the block's settings. Out: nothing, or an InfrastructureError that says why there is no such image.

import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { DockerEngine } from './docker-engine.ts'
import type { PulledImages } from './docker-images.ts'
import { chooseLogin } from './docker-login.ts'
import { patiently } from './docker-patience.ts'
import type { Pulls } from './docker-pull.ts'
import { defaultPullPolicy, parseReference } from './docker-reference.ts'
import type { DockerSettings } from './docker-settings.ts'
import { EngineError } from './docker-transport.ts'
import { InfrastructureError } from './infrastructure.ts'

/** How long an engine that does not say whether it has an image is asked again, in milliseconds. */
const limitMs = 15_000

export interface SupplyOptions {
  readonly engine: DockerEngine
  readonly pulls: Pulls
  readonly images: PulledImages
  readonly logger: Logger
  /** Docker's folder with config.json, for stored logins. */
  readonly configDirectory: string
  readonly environment: Readonly<Record<string, string | undefined>>
}

export class ImageSupply {
  readonly #options: SupplyOptions

  constructor(options: SupplyOptions) {
    this.#options = options
  }

  /** Before the create call: policy ALWAYS asks the registry each time. */
  async refresh(image: string, settings: DockerSettings, signal: AbortSignal): Promise<void> {
    if (pullPolicy(image, settings) !== 'ALWAYS') return
    const { engine, images } = this.#options
    const wasThere = await this.#isThere(engine, image, signal)
    await this.#pull(image, settings, signal)
    if (!wasThere || (await images.has(image))) await this.#note(image, signal)
  }

  /** The engine does not have it. */
  async fetch(image: string, settings: DockerSettings, signal: AbortSignal): Promise<void> {
    if (pullPolicy(image, settings) === 'NEVER') {
      throw new InfrastructureError(
        `The engine does not have image "${image}", and the block's pull policy NEVER forbids pulling it`,
        { blame: 'run' },
      )
    }
    await this.#pull(image, settings, signal)
    await this.#note(image, signal)
  }

  async #pull(image: string, settings: DockerSettings, signal: AbortSignal): Promise<void> {
    const { pulls, configDirectory, environment, logger } = this.#options
    const sources = { login: settings.registry, configDirectory, environment, logger }
    await pulls.pull(image, await chooseLogin(parseReference(image).registry, sources), signal)
  }

  /** In doubt it was there: then it is not ours, and never removed. */
  async #isThere(engine: DockerEngine, image: string, signal: AbortSignal): Promise<boolean> {
    try {
      const { logger } = this.#options
      return (await patiently(() => engine.inspectImage(image, signal), { logger, limitMs }, signal)) !== undefined
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof EngineError)) throw error
      return true
    }
  }

  /** An image that could not be noted is never removed, and harms no run. */
  async #note(image: string, signal: AbortSignal): Promise<void> {
    const { images, logger } = this.#options
    try {
      await patiently(() => images.notePull(image, signal), { logger, limitMs }, signal)
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof EngineError)) throw error
      logger.warn({ image, err: describeError(error) }, 'pulled image could not be noted')
    }
  }
}

function pullPolicy(image: string, settings: DockerSettings) {
  return settings.pullPolicy ?? defaultPullPolicy(parseReference(image))
}
