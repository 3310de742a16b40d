// Notes beside a run where its Job is about to be made, so that the next life of the agent looks there and nowhere else.
//
// Written before the first call, so without it nothing has been asked for. Ids only (one is a hash of the address): no
// credentials.

import { randomBytes } from 'node:crypto'
import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { errorCode } from '../errors.ts'
import type { Attempt } from './infrastructure.ts'

const schema = v.object({
  version: v.literal(1),
  clusterUid: v.string(),
  /** Others by which the same cluster is known, should the right to read its uid come or go. */
  aliases: v.optional(v.array(v.string()), []),
  namespace: v.string(),
  name: v.string(),
})
export type Place = Readonly<Omit<v.InferOutput<typeof schema>, 'version' | 'aliases'>> & {
  readonly aliases: readonly string[]
}

type Which = Pick<Attempt, 'flowRunId' | 'attempt'>

/** Undefined when there is none. `runsDirectory` holds one folder per run. */
export async function readPlace(runsDirectory: string, which: Which): Promise<Place | undefined> {
  try {
    return v.parse(schema, JSON.parse(await readFile(pathOf(runsDirectory, which), 'utf8')))
  } catch (error) {
    // Half a file cannot be: it is put in place by rename.
    if (errorCode(error) === 'ENOENT') return undefined
    throw error
  }
}

export async function writePlace(runsDirectory: string, which: Which, place: Place): Promise<void> {
  const path = pathOf(runsDirectory, which)
  // Of a name of its own, should two write at once: both say the same.
  const part = `${path}.${randomBytes(4).toString('hex')}`
  await writeFile(part, JSON.stringify({ version: 1, ...place }), { mode: 0o600 })
  await rename(part, path)
}

export async function forgetPlace(runsDirectory: string, which: Which): Promise<void> {
  await rm(pathOf(runsDirectory, which), { force: true })
}

function pathOf(runsDirectory: string, { flowRunId, attempt }: Which): string {
  return join(runsDirectory, flowRunId, `kubernetes-${attempt}.place`)
}
