// The driver seam: what a storage driver must say and do. A driver is 60 to 150 lines; everything else is done once for all:
//
//   block or pull step --registry.ts--> Remote --folder(path)--> Source --fetch-source.ts--> cache.ts --> workspace
//
// How to write one:
//  1. `open<Name>(data, context): Remote` reads the block's fields by a schema (block-fields.ts) and connects to nothing yet.
//  2. `folder(from)` joins `from` to the base path by `joinBelow` (paths.ts), which refuses what leaves it, taken literally:
//     no patterns. It returns a source for exactly that folder; paths of entries are relative to it.
//  3. A `FileSource` lists entries with what is cheap to know, and opens one file at an offset. Choose it whenever files can
//     be had one by one. A `TreeSource` is for what comes in one piece (git, archives, a helper program): it names the
//     present revision cheaply, and writes the whole tree into an empty private folder.
//  4. Not the driver's business: hostile names, clashes, limits, an empty result (an error), parallel downloads, retries,
//     resuming, links that leave the tree, modes, the cache, the workspace. Report names exactly as the server said them;
//     `TreeNames` (tree-names.ts) refuses the bad ones before the first write. A `TreeSource` whose tool would write by
//     itself lists first and asks `TreeNames` before it lets the tool write; the tree that it wrote is checked again.
//  5. Errors: `StorageError` for what is final (missing bucket, 401, 403, wrong field), with the server's own words;
//     `TransientError` for what may pass (a cut connection, 429, 5xx): only the shared downloader tries again. Sentences need
//     not name place and credentials, these are added; no secret may be in them, in any encoding.
//  6. `target(to)` is the way back, for block types that Prefect can write to: it reads and writes single files below a folder.
//     Walking the tree, ignoring, parallel uploads, limits and retries are upload.ts's business.
//  7. Register the slug in registry.ts, and for `remote-file-system` the protocol in protocols.ts. Packages and helper
//     programs are loaded at first use. Add a row to the contract suite (test/storage/contract.ts).

import type { Readable } from 'node:stream'

/** What a block opens: a place with folders. Nothing is asked of a server before a source is used. */
export interface Remote {
  /** `from` is the deployment's path; undefined or empty is the base itself. Throws a StorageError when it leaves the base. */
  folder(from: string | undefined): Source
  /** Missing where Prefect's block cannot be written to (git, HTTP). Joins `to` and throws as `folder` does. */
  target?(to: string | undefined): Target
  /** The same for reading alone, where there is no target but single files can be had: an archive may lie there. */
  reader?(from: string | undefined): Reader
}

export type Source = FileSource | TreeSource

interface Described {
  /** For people, without secrets: what is fetched from where, such as `s3://bucket/flows at http://host:9000`. */
  readonly place: string
  /** For people: the kind of credentials and where they come from, such as `access key of the block`; never their value. */
  readonly credentials: string
  /** Lets go of connections. Called once, also after a failure. */
  close(): Promise<void>
}

interface Identified extends Described {
  /**
   * Everything that decides what this source gives: type, endpoint, path, options, credentials themselves. Any JSON.
   * Two sources with the same identity share one cache entry; only a keyed hash of it is ever written.
   */
  readonly identity: readonly unknown[]
}

/** A source whose files can be had one by one. */
export interface FileSource extends Identified {
  readonly kind: 'files'
  /** How many `open`s at once pay off. */
  readonly connections: number
  /**
   * All entries below the folder, recursively, in pages and in any order. Nothing below it: no entries, not an error.
   * `known` gives what an earlier look has found, for a listing that does not say enough by itself; undefined when nothing has
   * been fetched from here before: then validators may come with the content.
   */
  list(signal: AbortSignal, known?: () => Promise<KnownFiles | undefined>): AsyncIterable<readonly Entry[]>
  /**
   * Opens one file from `offset` on. Must fail with a ChangedError when the server can say that the file is not the listed
   * one any more (If-Match).
   */
  open(file: FileEntry, offset: number, signal: AbortSignal): Promise<Content>
}

/** A source that comes in one piece. */
export interface TreeSource extends Identified {
  readonly kind: 'tree'
  /** Names what the source holds now, as cheaply as it can be asked; undefined when it cannot say, then nothing is cached. */
  revision(signal: AbortSignal): Promise<string | undefined>
  /** Writes the whole tree into `to`, an existing, empty, private folder. `revision` is what `revision()` gave before. */
  fetchTree(revision: string | undefined, to: string, signal: AbortSignal): Promise<void>
}

/** A folder whose files are read one by one. All paths are below it, with `/`, without empty parts, `.` and `..`. */
export interface Reader extends Described {
  /** The content of one file, with its validator. No such file, or a folder: a StorageError or ChangedError. */
  read(path: string, offset: number, signal: AbortSignal): Promise<Content>
  /** What is known of a file without reading it; only where `read` brings all of it before it says so. */
  look?(path: string, signal: AbortSignal): Promise<Pick<FileEntry, 'size' | 'validator'>>
}

/** A folder whose files are written one by one as well. */
export interface Target extends Reader {
  /** How many `write`s at once pay off. */
  readonly connections: number
  /**
   * Writes one file, over what is there; readers see the old content or the new one where the storage can do that. Makes the
   * folders that are missing. May be called again for the same file after a TransientError or a cut connection.
   */
  write(path: string, upload: Upload, signal: AbortSignal): Promise<void>
  /** Only where Prefect keeps them: an empty folder, with its mode. Elsewhere it is left out. */
  makeFolder?(path: string, mode: number): Promise<void>
  /** Only where Prefect's storage has links: elsewhere a link to a file becomes a copy of it. `text` stays inside the tree. */
  makeLink?(path: string, text: string): Promise<void>
}

/** What is written: a file of this machine, or bytes. */
export interface Upload {
  /** In bytes. */
  readonly size: number
  /** Permission bits; for storages that have them. */
  readonly mode: number
  /** Where it lies on this machine, for tools that read by themselves; undefined: only `open` has it. */
  readonly file: string | undefined
  /**
   * The whole of it or a part of it, once for each try: small ones as bytes, large ones as a stream that fails when the file
   * shrinks.
   */
  open(part?: Part): Promise<Uint8Array | Readable>
}

/** A piece of an upload that is sent by itself. */
export interface Part {
  /** From 1 on. */
  readonly number: number
  /** In bytes, as `size`. */
  readonly start: number
  readonly size: number
}

export type Entry = FileEntry | FolderEntry | LinkEntry

export interface FileEntry {
  readonly kind: 'file'
  /** Below the folder, with `/`, as the server says it; judged by TreeNames before it is used. */
  readonly path: string
  /** In bytes; undefined when the server does not say. */
  readonly size: number | undefined
  /** Differs whenever the content may differ (ETag, time with size); undefined: the file is fetched each time. */
  readonly validator: string | undefined
  /** Nobody has asked for it yet: it comes with the content. Only with a `size`. */
  readonly validatorComes?: true
  /**
   * What the listing itself says of it, where that is not its validator but will do the next time: as long as the listing says
   * the same, the validator is the same.
   */
  readonly sign?: string
  /** Permission bits when the source has them; default 0644. */
  readonly mode?: number
  /** Whatever the driver needs to open it: a key, a URL. */
  readonly ref: string
}

/** By path, of files whose listing had a sign. */
export type KnownFiles = ReadonlyMap<string, { readonly validator: string; readonly sign: string }>

export interface FolderEntry {
  readonly kind: 'folder'
  readonly path: string
  readonly mode?: number
}

export interface LinkEntry {
  readonly kind: 'link'
  readonly path: string
  /** The text of the link. */
  readonly target: string
}

export interface Content {
  /** Where the stream really begins: the asked offset, or 0 when the server cannot start in the middle. */
  readonly offset: number
  /** May be used once. Fails when the connection is cut. */
  readonly stream: AsyncIterable<Uint8Array>
  /** Names this state of the file where the server says it along with the content; for `validatorComes`, and for archives. */
  readonly validator?: string | undefined
  /** As in the entry, for `validatorComes`. */
  readonly sign?: string | undefined
  /**
   * The whole of it at once, if the driver can do that cheaper than by the stream; used for small files. Of what is longer than
   * `limit` only the beginning, which is longer than that as well: what a server sends may have no end.
   */
  readonly bytes?: (limit: number) => Promise<Uint8Array>
}

/** It may work when tried again. */
export class TransientError extends Error {
  /** What the server asks to wait, in milliseconds. */
  readonly retryAfterMs: number | undefined

  constructor(message: string, options: { retryAfterMs?: number | undefined; cause?: unknown } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.name = 'TransientError'
    this.retryAfterMs = options.retryAfterMs
  }
}

/** The source has changed since it was listed: list again. */
export class ChangedError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'ChangedError'
  }
}
