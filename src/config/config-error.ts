// The one error of this room: the program was called or configured in a way that cannot be used.

import { UserError } from '../errors.ts'

/** Exit code of everything that is wrong with the call or the configuration; trying again does not help. */
export const USAGE_ERROR = 2

export class ConfigError extends UserError {
  constructor(message: string, options: { hint?: string | undefined; cause?: unknown } = {}) {
    super(message, {
      ...(options.hint === undefined ? {} : { hint: options.hint }),
      ...('cause' in options ? { cause: options.cause } : {}),
      exitCode: USAGE_ERROR,
    })
  }
}
