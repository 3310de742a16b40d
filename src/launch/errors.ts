// The error of this room: what is to be started cannot be decided from what the deployment, the block and the code say.

/** Ends the run as Crashed: the message is a sentence for its owner, and never holds a value that may be secret. */
export class LaunchError extends Error {
  constructor(message: string, options: { cause?: unknown } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.name = 'LaunchError'
  }
}
