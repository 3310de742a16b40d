// The storage servers that storages.sh has started for the tests. Use one only where `needs('<name>')` lets you.

import { existsSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'

export type StorageSettings = Readonly<Record<string, string>>

function settingsFile(name: string): string {
  return join(process.env.RIGEL_TEST_STORAGES || join(tmpdir(), 'rigel-storages'), name, 'settings.json')
}

/** Undefined when it has been started, else what is missing. */
export function missingStorage(name: string): string | undefined {
  const file = settingsFile(name)
  return existsSync(file)
    ? undefined
    : `the storage server ${name} (test/support/storages.sh start ${name}) and RIGEL_TEST_STORAGES`
}

/** What the server's file in storages/ says at its end: endpoint, credentials. All values are texts. */
export function storageServer(name: string): StorageSettings {
  // Written by storages.sh, a flat object of texts.
  const settings: StorageSettings = JSON.parse(readFileSync(settingsFile(name), 'utf8'))
  return settings
}
