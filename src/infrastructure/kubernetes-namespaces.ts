// Remembers in the state folder in which namespaces this agent has started Jobs, for the collection of finished ones:
// an agent with rights in a few namespaces cannot ask the whole cluster.

import { randomBytes } from 'node:crypto'
import { readFile, rename, writeFile } from 'node:fs/promises'
import * as v from 'valibot'
import { errorCode } from '../errors.ts'

const schema = v.object({
  version: v.literal(1),
  places: v.array(v.object({ clusterUid: v.string(), namespace: v.string() })),
})
type Places = v.InferOutput<typeof schema>['places']

export class UsedNamespaces {
  readonly #path: string
  readonly #known = new Set<string>()
  /** Writes follow one another, each upon what the one before has left. */
  #turn: Promise<void> = Promise.resolve()

  /** `path`: the file, which is made at the first run. */
  constructor(path: string) {
    this.#path = path
  }

  async note(clusterUid: string, namespace: string): Promise<void> {
    const key = `${clusterUid}:${namespace}`
    if (this.#known.has(key)) return
    const before = this.#turn
    const turn = this.#add(clusterUid, namespace, before)
    this.#turn = turn.catch(() => undefined)
    await turn
    this.#known.add(key)
  }

  /** Namespaces by cluster. */
  async all(): Promise<ReadonlyMap<string, readonly string[]>> {
    return new Map(
      Object.entries(Object.groupBy(await this.#read(), place => place.clusterUid)).map(([uid, places = []]) => [
        uid,
        places.map(place => place.namespace),
      ]),
    )
  }

  async #add(clusterUid: string, namespace: string, before: Promise<void>): Promise<void> {
    await before
    const places = await this.#read()
    if (places.some(place => place.clusterUid === clusterUid && place.namespace === namespace)) return
    const text = JSON.stringify({ version: 1, places: [...places, { clusterUid, namespace }] })
    const part = `${this.#path}.${randomBytes(4).toString('hex')}`
    await writeFile(part, text, { mode: 0o600 })
    await rename(part, this.#path)
  }

  async #read(): Promise<Places> {
    try {
      return v.parse(schema, JSON.parse(await readFile(this.#path, 'utf8'))).places
    } catch (error) {
      // A file that cannot be read is begun anew: what is missing in it is collected by its time to live, or by hand.
      if (errorCode(error) === 'ENOENT' || error instanceof SyntaxError || error instanceof v.ValiError) return []
      throw error
    }
  }
}
