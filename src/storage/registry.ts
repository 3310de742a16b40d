// From a block document to the driver that can fetch from it. Drivers are loaded at first use: an agent whose code lies on
// disk never loads an SDK.

import type { StorageContext } from './context.ts'
import { type Storage, StorageError } from './storage.ts'

/** What is read of a block document: its type's slug and its fields, secrets included. */
export interface StorageBlock {
  readonly slug: string
  readonly data: Readonly<Record<string, unknown>>
}

type OpenDriver = (data: StorageBlock['data'], context: StorageContext) => Storage | Promise<Storage>

const drivers: Readonly<Record<string, () => Promise<OpenDriver>>> = {
  'local-file-system': async () => (await import('./local-file-system.ts')).openLocalFileSystem,
}

/** The block types that code can be fetched from. */
export const storageTypes: readonly string[] = Object.keys(drivers)

/** Throws a StorageError that names the type when there is no driver for it, or the field when the block is unsound. */
export async function openStorage(block: StorageBlock, context: StorageContext): Promise<Storage> {
  const load = Object.hasOwn(drivers, block.slug) ? drivers[block.slug] : undefined
  if (!load) {
    throw new StorageError(
      `Flow code cannot be fetched from a storage block of type "${block.slug}": no driver for it (known: ${storageTypes.join(', ')})`,
    )
  }
  const open = await load()
  return open(block.data, context)
}
