// What a tree of the cache consists of. A tree's name is a hash of its content, so it can be verified when it is read.
//
//   <tree>/manifest.json    this
//   <tree>/pack             all small files, one after the other: one file to write and to read instead of thousands
//   <tree>/large/<n>        each large file by itself, so that it can be cloned

import { hash } from 'node:crypto'
import * as v from 'valibot'

/** Files above it lie by themselves. */
export const largeBytes = 256 * 1024

const sha256 = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))
const count = v.pipe(v.number(), v.integer(), v.minValue(0))

const ManifestEntry = v.variant('kind', [
  v.object({ kind: v.literal('folder'), path: v.string(), mode: count }),
  v.object({ kind: v.literal('link'), path: v.string(), target: v.string() }),
  v.object({ kind: v.literal('small'), path: v.string(), mode: count, size: count, sha256, offset: count }),
  v.object({ kind: v.literal('large'), path: v.string(), mode: count, size: count, sha256, number: count }),
])
export type ManifestEntry = v.InferOutput<typeof ManifestEntry>

const ManifestSchema = v.object({ version: v.literal(1), entries: v.array(ManifestEntry) })

export const defaultFileMode = 0o644
export const defaultFolderMode = 0o755

export function hashBytes(bytes: Uint8Array): string {
  return hash('sha256', bytes, 'hex')
}

/** Collects entries while a tree is being written, and gives each its place. */
export class ManifestBuilder {
  readonly #entries: ManifestEntry[] = []
  #packBytes = 0
  #largeFiles = 0

  addFolder(path: string, mode: number): void {
    this.#entries.push({ kind: 'folder', path, mode })
  }

  addLink(path: string, target: string): void {
    this.#entries.push({ kind: 'link', path, target })
  }

  /** The caller appends the bytes to the pack, in the same order as it calls this. */
  addSmall(file: { path: string; mode: number }, bytes: Uint8Array): void {
    const { path, mode } = file
    this.#entries.push({
      kind: 'small',
      path,
      mode,
      size: bytes.length,
      sha256: hashBytes(bytes),
      offset: this.#packBytes,
    })
    this.#packBytes += bytes.length
  }

  /** The number of the next large file. */
  nextLarge(): number {
    return this.#largeFiles++
  }

  addLarge(file: { path: string; mode: number; size: number; sha256: string; number: number }): void {
    this.#entries.push({ kind: 'large', ...file })
  }

  /** The text of the manifest, and the tree's name. */
  finish(): { readonly text: string; readonly id: string } {
    return { text: JSON.stringify({ version: 1, entries: this.#entries }), id: treeId(this.#entries) }
  }
}

/** A hash over paths, modes, contents and links, whatever the order and the place of the bytes in the pack. */
export function treeId(entries: readonly ManifestEntry[]): string {
  const lines = entries.map(entry => {
    if (entry.kind === 'link') return JSON.stringify([entry.path, 'link', entry.target])
    if (entry.kind === 'folder') return JSON.stringify([entry.path, 'folder', entry.mode])
    return JSON.stringify([entry.path, entry.mode, entry.size, entry.sha256])
  })
  return hashBytes(Buffer.from(lines.toSorted().join('\n')))
}

/** Undefined when it is not a manifest, or not the one of that name. */
export function readManifest(text: string, id: string): readonly ManifestEntry[] | undefined {
  const result = v.safeParse(ManifestSchema, parseJson(text))
  return result.success && treeId(result.output.entries) === id ? result.output.entries : undefined
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
