// What a source holds now, as cheaply as it can be asked, judged before anything is written.

import type { FetchLimits } from './context.ts'
import { hashBytes } from './manifest.ts'
import type { Content, Entry, KnownFiles, Source } from './source.ts'
import { StorageError } from './storage.ts'
import { TreeNames } from './tree-names.ts'

export interface Snapshot {
  /** Equal validators of one source mean equal content; undefined: the source cannot say. */
  readonly validator: string | undefined
  /** Empty for sources that come in one piece. */
  readonly entries: readonly Entry[]
}

export type ArrivedValidator = Pick<Content, 'validator' | 'sign'>

/** By path. */
export type ArrivedValidators = ReadonlyMap<string, ArrivedValidator>

/**
 * `known` is what the look before this one has found. Throws a StorageError for names that must not be written, for more than
 * the limits, and for nothing at all.
 */
export async function takeSnapshot(
  source: Source,
  limits: FetchLimits,
  signal: AbortSignal,
  known?: () => Promise<KnownFiles | undefined>,
): Promise<Snapshot> {
  if (source.kind === 'tree') return { validator: await source.revision(signal), entries: [] }
  const names = new TreeNames(limits)
  const entries: Entry[] = []
  for await (const page of source.list(signal, known)) {
    for (const entry of page) {
      names.add(entry)
      entries.push(entry)
    }
  }
  if (names.isEmpty) throw new StorageError('There is nothing below it')
  return { validator: validatorOf(entries), entries }
}

/** False: some validators come with the content, so nobody can say yet whether anything has changed. */
export function isComplete({ entries }: Snapshot): boolean {
  return !entries.some(entry => entry.kind === 'file' && entry.validatorComes)
}

/** With the validators that have come. */
export function completeSnapshot(snapshot: Snapshot, arrived: ArrivedValidators): Snapshot {
  if (isComplete(snapshot)) return snapshot
  const entries = snapshot.entries.map((entry): Entry => {
    if (entry.kind !== 'file' || !entry.validatorComes) return entry
    const { validator, sign } = arrived.get(entry.path) ?? {}
    return { ...entry, validator, ...(sign === undefined ? {} : { sign }) }
  })
  return { validator: validatorOf(entries), entries }
}

/** What the next look is to be told. */
export function knownFiles(entries: readonly Entry[]): KnownFiles {
  return new Map(
    entries.flatMap(entry => {
      if (entry.kind !== 'file' || entry.validator === undefined || entry.sign === undefined) return []
      return [[entry.path, { validator: entry.validator, sign: entry.sign }] as const]
    }),
  )
}

/** One hash over all entries, in whatever order they came. */
function validatorOf(entries: readonly Entry[]): string | undefined {
  if (entries.some(entry => entry.kind === 'file' && entry.validator === undefined)) return undefined
  const lines = entries.map(entry => {
    if (entry.kind === 'link') return JSON.stringify([entry.path, 'link', entry.target])
    if (entry.kind === 'folder') return JSON.stringify([entry.path, 'folder', entry.mode])
    return JSON.stringify([entry.path, entry.size, entry.validator, entry.mode])
  })
  return hashBytes(Buffer.from(lines.toSorted().join('\n')))
}
