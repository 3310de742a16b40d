// Work that many ask for and that is done once for each key: making the folders of an upload.

export class EachOnce {
  readonly #known = new Map<string, Promise<void>>()

  /** What has failed is done again for the next who asks. */
  do(key: string, work: () => Promise<void>): Promise<void> {
    const known = this.#known.get(key)
    if (known) return known
    const doing = work()
    this.#known.set(key, doing)
    doing.catch(() => this.#known.delete(key))
    return doing
  }
}
