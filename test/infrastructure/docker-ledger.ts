// A file on this machine that containers of the test engine write their deeds to: the judge of what ran how often.

import { chmod, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { makeDirectory } from '../support/directory.ts'

export interface Ledger extends AsyncDisposable {
  /** Block fields that put the ledger's folder at /ledger. */
  readonly settings: Readonly<Record<string, unknown>>
  /** Lines of /ledger/marks. */
  lines(): Promise<string[]>
  /** Makes /ledger/`name`, which a container may wait for. */
  allow(name: string): Promise<void>
}

export async function dockerLedger(): Promise<Ledger> {
  const directory = await makeDirectory()
  await chmod(directory.path, 0o777)
  return {
    settings: { volumes: [`${directory.path}:/ledger`] },
    lines: async () => {
      const text = await readFile(join(directory.path, 'marks'), 'utf8').catch(() => '')
      return text.split('\n').filter(line => line !== '')
    },
    allow: name => writeFile(join(directory.path, name), ''),
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  }
}
