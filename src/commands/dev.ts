// `rigel dev`: embedded server and agent in one process.

import { UserError } from '../errors.ts'
import type { Context } from './context.ts'
import type { Call } from './options.ts'

export async function runDev(_context: Context, _call: Call): Promise<number> {
  throw new UserError('`rigel dev` is not there yet.')
}
