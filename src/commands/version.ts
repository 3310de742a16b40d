// `rigel version`: what a report of a problem should begin with. Asks no server.

import { readVersion } from '../version.ts'
import type { Context } from './context.ts'
import { printThing } from './output.ts'

export async function printVersion(context: Context): Promise<void> {
  const { config } = context
  await printThing(context, {
    version: readVersion(),
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    api: config.api.url === undefined ? 'not set' : new URL(config.api.url).origin,
    state_dir: config.paths.stateDir,
  })
}
