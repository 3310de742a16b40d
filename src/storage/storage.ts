// The seam between a deployment's storage block and the run's workspace.

/** A place that holds flow code. */
export interface Storage {
  /**
   * Brings the tree below `from` (undefined or empty: the block's base path) into the directory `to`, which exists and
   * is empty. Rejects with a StorageError; what was written until then is never used.
   */
  getDirectory(from: string | undefined, to: string, signal: AbortSignal): Promise<void>
}

/**
 * The code could not be had. The message says what was tried, on what, and with which kind of credentials; never a secret.
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
