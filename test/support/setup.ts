// What `npm test` does before the first test file and after the last: all files share one nursery for each Prefect.

import { existsSync } from 'node:fs'
import process from 'node:process'
import { type Nursery, startNursery } from './prefect-nursery.ts'
import { buildServerEnvironment, findPython, nurseryVariables } from './prefect-server.ts'

const nurseries: Nursery[] = []

export async function globalSetup(): Promise<void> {
  for (const which of ['prefect2', 'prefect3'] as const) {
    if (!existsSync(findPython(which))) continue
    const nursery = await startNursery(findPython(which), buildServerEnvironment(which))
    nurseries.push(nursery)
    process.env[nurseryVariables[which]] = nursery.socket
  }
}

export async function globalTeardown(): Promise<void> {
  for (const nursery of nurseries) await nursery[Symbol.asyncDispose]()
}
