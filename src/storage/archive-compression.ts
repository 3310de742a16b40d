// The bytes of a tar file, whatever it is compressed by: gzip and zstd the tar package reads itself, for bzip2 and xz, which
// Node cannot read, it goes through the programs of that name.

import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import type { StorageContext } from './context.ts'
import { streamProgram } from './program.ts'

/** By what a file begins with, for names tell little. More memory than xz needs at its highest setting is refused by it. */
const programs = [
  { program: 'bzip2', words: ['-dc'], magic: Buffer.from('BZh') },
  { program: 'xz', words: ['-dc', '--memlimit-decompress=256MiB'], magic: Buffer.from('\xfd7zXZ\0', 'latin1') },
]

/** May be called again. Rejects with a StorageError when the program is missing, or finds the file damaged. */
export async function* readTarFile(
  archive: string,
  environment: StorageContext['environment'],
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const found = await programFor(archive)
  if (!found) {
    yield* createReadStream(archive)
    return
  }
  const { program, words } = found
  yield* streamProgram({ program, arguments: words, environment, inputFile: archive }, signal)
}

async function programFor(archive: string): Promise<(typeof programs)[number] | undefined> {
  await using file = await open(archive)
  const { buffer, bytesRead } = await file.read(Buffer.alloc(6), 0, 6, 0)
  const head = buffer.subarray(0, bytesRead)
  return programs.find(({ magic }) => head.subarray(0, magic.length).equals(magic))
}
