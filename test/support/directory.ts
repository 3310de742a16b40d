// A temporary directory that is gone when its owner's block ends: `await using directory = await makeDirectory()`.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface TemporaryDirectory extends AsyncDisposable {
  /** Absolute path. */
  readonly path: string
}

export async function makeDirectory(): Promise<TemporaryDirectory> {
  const path = await mkdtemp(join(tmpdir(), 'rigel-test-'))
  return {
    path,
    // Retried, for a child that is just ending may still write here.
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }),
  }
}
