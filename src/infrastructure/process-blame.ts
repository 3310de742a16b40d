// Who is to blame for a process that could not be started.

import { describeError, errorCode, isHostError } from '../errors.ts'
import { InfrastructureError } from './infrastructure.ts'

/** Puts a failure to lay out or start a submission into words, with the one to blame. Anything else is a bug, and stays. */
export function explainSpawnError(error: unknown): unknown {
  const code = errorCode(error)
  if (error instanceof InfrastructureError || code === undefined) return error
  if (isHostError(error)) {
    return new InfrastructureError(`This machine could not start a process: ${describeError(error)}`, {
      blame: 'host',
      cause: error,
    })
  }
  if (code === 'E2BIG') {
    return new InfrastructureError('The command and its environment are larger than the kernel takes (ARG_MAX)', {
      blame: 'run',
      cause: error,
    })
  }
  return new InfrastructureError(`The process could not be started: ${describeError(error)}`, {
    blame: 'run',
    cause: error,
  })
}
