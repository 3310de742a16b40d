// The seam between a deployment's storage block and the run's workspace.

/** A place that holds flow code. */
export interface Storage {
  /**
   * Brings the tree below `from` (undefined or empty: the block's base path) into the directory `to`, which exists and
   * is empty. Rejects with a StorageError; what was written until then is never used.
   */
  getDirectory(from: string | undefined, to: string, signal: AbortSignal): Promise<void>
}

/** A place that can be written to as well: flows are deployed to it, results are kept there. */
export interface WritableStorage extends Storage {
  /**
   * Writes the tree below the local folder `from` to the folder `to` (undefined or empty: the block's base path), over what
   * is there; nothing is removed. `ignoreFile` is the path of a `.prefectignore`, whose patterns are relative to `from`.
   * Returns the number of files. Rejects with a StorageError; then some of the files may have been written.
   */
  putDirectory(
    from: string,
    to: string | undefined,
    ignoreFile: string | undefined,
    signal: AbortSignal,
  ): Promise<number>
  /** The whole content of a file, `path` below the base path. */
  readPath(path: string, signal: AbortSignal): Promise<Uint8Array>
  /** Writes a file over what is there and makes the folders on the way. */
  writePath(path: string, content: Uint8Array, signal: AbortSignal): Promise<void>
}

/**
 * The code could not be had, or not be put there. The message says what was tried, on what, and with which kind of credentials; never a secret.
 * `blame` as in InfrastructureError: `run` is final, `host` (disk full, network down) gives the run back for later.
 */
export class StorageError extends Error {
  readonly blame: 'run' | 'host'

  constructor(message: string, options: { blame?: 'run' | 'host'; cause?: unknown } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.name = 'StorageError'
    this.blame = options.blame ?? 'run'
  }
}

/** There is no way back to where the block points: a git repository, a web site, an archive. */
export class ReadOnlyError extends StorageError {
  constructor(slug: string, place: string) {
    super(`The storage block of type "${slug}" (${place}) can only be read`)
    this.name = 'ReadOnlyError'
  }
}
