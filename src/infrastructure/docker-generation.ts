// Counts how often the container of an attempt was given up before it was started.
//
// A start call of a life that was killed may still be on its way, and asks for its container by name. What that life
// created is removed, and the next container of the attempt gets another name, so that such a call finds nothing.

import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { errorCode } from '../errors.ts'
import type { Attempt } from './infrastructure.ts'

type Which = Pick<Attempt, 'flowRunId' | 'attempt'>

/** 0 for an attempt that has not been given up yet. `runsDirectory` holds one folder per run. */
export async function readGeneration(runsDirectory: string, which: Which): Promise<number> {
  try {
    return Number(await readFile(pathOf(runsDirectory, which), 'utf8')) || 0
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return 0
    throw error
  }
}

export async function nextGeneration(runsDirectory: string, which: Which): Promise<void> {
  const path = pathOf(runsDirectory, which)
  try {
    await writeFile(`${path}.part`, String((await readGeneration(runsDirectory, which)) + 1), { mode: 0o600 })
    await rename(`${path}.part`, path)
  } catch (error) {
    // Without a folder there is no record of the run, so it will not be submitted again.
    if (errorCode(error) !== 'ENOENT') throw error
  }
}

export async function forgetGeneration(runsDirectory: string, which: Which): Promise<void> {
  await rm(pathOf(runsDirectory, which), { force: true })
}

function pathOf(runsDirectory: string, { flowRunId, attempt }: Which): string {
  return join(runsDirectory, flowRunId, `docker-${attempt}.generation`)
}
