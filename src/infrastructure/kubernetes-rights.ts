// Names each missing right once. What a right is for is switched off without it; what cannot do without it says so.

import type { Logger } from '../logger.ts'

/** What is lost without a right, in the words of the log. */
const losses = {
  'get namespaces': 'the cluster is known by a substitute id: agents of Prefect cannot cancel these runs',
  'watch jobs': 'Jobs are listed again and again instead',
  'watch pods': 'pods are listed again and again instead',
  'list jobs': 'ends of Jobs are not seen',
  'list pods': 'runs have no exit codes, no reasons and no output',
  'get pods/log': 'runs have no output',
  'list events': 'why a Job has no pod cannot be said',
  'patch jobs': 'finished Jobs are kept for a day instead of the time that their block names',
  'delete jobs': 'runs cannot be ended',
  'delete pods': 'the grace of the agent is not kept: pods end within their own',
} as const

export type Right = keyof typeof losses

export class Rights {
  readonly #logger: Logger
  readonly #missing = new Set<string>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** `namespace`: where the right is missing; empty for rights on the whole cluster. */
  noteMissing(right: Right, namespace: string): void {
    const key = `${right} ${namespace}`
    if (this.#missing.has(key)) return
    this.#missing.add(key)
    const fields = { right, ...(namespace === '' ? {} : { namespace }), without: losses[right] }
    this.#logger.warn(fields, 'the agent lacks a right in the cluster')
  }

  isMissing(right: Right, namespace: string): boolean {
    return this.#missing.has(`${right} ${namespace}`)
  }
}
