// Remembers which images were pulled for runs, and removes them when they are kept no longer and nobody uses them.
//
// An image cannot be labelled, so what is ours stands in a file of the state folder: reference, id, last use. An image
// that was there before, or that somebody has pulled or built anew since under the same name, is not ours.

import { existsSync } from 'node:fs'
import { readFile, rename, writeFile } from 'node:fs/promises'
import * as v from 'valibot'
import { describeError, errorCode } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { ContainerSummary, ImageInfo } from './docker-answers.ts'
import type { DockerEngine } from './docker-engine.ts'
import { isRefusal } from './docker-transport.ts'
import type { Collectable, KeepRule } from './infrastructure.ts'
import { chooseExcess } from './keep-rule.ts'

/** A use is noted only when the last one noted is older, for a burst would otherwise write a file for each run. */
const noteUseAfterMs = 600_000

const fileSchema = v.object({
  version: v.literal(1),
  images: v.array(
    v.object({
      /** The engine's base url. */
      engine: v.string(),
      reference: v.string(),
      id: v.string(),
      usedAt: v.pipe(v.string(), v.isoTimestamp()),
    }),
  ),
})
type PulledImage = v.InferOutput<typeof fileSchema>['images'][number]

interface Candidate {
  readonly entry: PulledImage
  readonly image: ImageInfo
  /** Of its last use, in milliseconds since 1970. */
  readonly endedAtMs: number
}

export class PulledImages {
  readonly #path: string
  readonly #engine: DockerEngine
  readonly #logger: Logger
  /** Writes follow one another, each upon what the one before has left. */
  #turn: Promise<void> = Promise.resolve()
  readonly #usedAtMs = new Map<string, number>()

  /** `path`: the file, which is made at the first pull. */
  constructor(path: string, engine: DockerEngine, logger: Logger) {
    this.#path = path
    this.#engine = engine
    this.#logger = logger
  }

  /** To be called after a pull of an image that the engine did not have before it, or that is ours already. */
  async notePull(reference: string, signal: AbortSignal): Promise<void> {
    const image = await this.#engine.inspectImage(reference, signal)
    if (!image) return
    const entry = { engine: this.#engine.baseUrl, reference, id: image.Id, usedAt: new Date().toISOString() }
    this.#usedAtMs.set(reference, Date.now())
    await this.#change(images => [...images.filter(one => !isSame(one, entry)), entry])
  }

  /** To be called when a run uses an image; costs nothing for those that are not ours. */
  async noteUse(reference: string): Promise<void> {
    const last = this.#usedAtMs.get(reference) ?? 0
    if (Date.now() - last < noteUseAfterMs || !existsSync(this.#path)) return
    this.#usedAtMs.set(reference, Date.now())
    const key = { engine: this.#engine.baseUrl, reference }
    await this.#change(images =>
      images.some(one => isSame(one, key))
        ? images.map(one => (isSame(one, key) ? { ...one, usedAt: new Date().toISOString() } : one))
        : undefined,
    )
  }

  async has(reference: string): Promise<boolean> {
    return (await this.#read()).some(one => isSame(one, { engine: this.#engine.baseUrl, reference }))
  }

  /** Removes those beyond the rule that no container uses, oldest first. Throws an EngineError. */
  async collect(rule: KeepRule, dryRun: boolean, signal: AbortSignal): Promise<readonly Collectable[]> {
    const entries = (await this.#read()).filter(({ engine }) => engine === this.#engine.baseUrl)
    if (entries.length === 0) return []
    const ours: Candidate[] = []
    for (const entry of entries) {
      const image = await this.#engine.inspectImage(entry.reference, signal)
      if (image?.Id === entry.id) ours.push({ entry, image, endedAtMs: Date.parse(entry.usedAt) })
      else if (!dryRun) await this.#forget(entry)
    }
    const excess = chooseExcess(ours, rule, Date.now())
    const containers = excess.length > 0 ? await this.#engine.list([], true, signal) : []
    const removed: Collectable[] = []
    for (const one of excess) {
      if (isUsed(one, containers) || !(dryRun || (await this.#remove(one.entry, signal)))) continue
      removed.push({
        kind: 'image',
        name: one.entry.reference,
        flowRunId: undefined,
        since: new Date(one.endedAtMs),
      })
    }
    return removed
  }

  /** Never forced: an image that a container has come to use meanwhile is refused. */
  async #remove(entry: PulledImage, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#engine.removeImage(entry.reference, signal)
    } catch (error) {
      if (isRefusal(error, 409)) return false
      throw error
    }
    await this.#forget(entry)
    return true
  }

  async #forget(entry: PulledImage): Promise<void> {
    this.#usedAtMs.delete(entry.reference)
    await this.#change(images => images.filter(one => !(isSame(one, entry) && one.id === entry.id)))
  }

  /** What cannot be noted is never removed; that is worth a warning, but no run. */
  async #change(next: (images: readonly PulledImage[]) => readonly PulledImage[] | undefined): Promise<void> {
    const before = this.#turn
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#turn = promise
    await before
    try {
      const images = next(await this.#read())
      if (images) await this.#write(images)
    } catch (error) {
      this.#logger.warn({ path: this.#path, err: describeError(error) }, 'pulled images could not be noted')
    } finally {
      resolve()
    }
  }

  async #write(images: readonly PulledImage[]): Promise<void> {
    await writeFile(`${this.#path}.part`, JSON.stringify({ version: 1, images }), { mode: 0o600 })
    await rename(`${this.#path}.part`, this.#path)
  }

  async #read(): Promise<readonly PulledImage[]> {
    try {
      return v.parse(fileSchema, JSON.parse(await readFile(this.#path, 'utf8'))).images
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return []
      this.#logger.warn({ path: this.#path, err: describeError(error) }, 'list of pulled images cannot be read')
      return []
    }
  }
}

/** An image of several names only loses ours, which is no loss for containers that were made by another name. */
function isUsed({ entry, image }: Candidate, containers: readonly ContainerSummary[]): boolean {
  const hasOtherNames = image.RepoTags.some(tag => tag !== entry.reference)
  return containers.some(({ Image, ImageID }) => ImageID === entry.id && (Image === entry.reference || !hasOtherNames))
}

function isSame(one: Pick<PulledImage, 'engine' | 'reference'>, other: Pick<PulledImage, 'engine' | 'reference'>) {
  return one.engine === other.engine && one.reference === other.reference
}
