// Runs the first pull steps of a deployment as far as they only fetch; the rest belongs to the engine where the flow runs,
// which gets the outputs of those that were done here.
//
//   git_clone   pull_from_s3   run_shell_script   git_clone
//   `------ done here ------'  `------ left to the engine ------'

import { mkdir, mkdtemp, readdir, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { errorCode } from '../errors.ts'
import { storageError } from './blame.ts'
import type { StorageContext } from './context.ts'
import { fetchStepName, openFetchStep } from './fetch-steps.ts'
import { fillInputs, isTable, type StepReaders } from './step-templates.ts'
import { StorageError } from './storage.ts'
import { removeTree } from './workspace.ts'

/** Where the flow will run, as far as steps depend on it. */
export interface StepScene {
  readonly readers: StepReaders
  /** What is known of the environment of the run. */
  readonly environment: Readonly<Record<string, string | null | undefined>>
  /**
   * The run is a process of this machine: it sees this disk, and `environment` is all that it gets. Elsewhere a step that
   * needs more is left to the engine.
   */
  readonly isHere: boolean
}

export interface PulledSteps {
  /** How many of the deployment's steps, empty ones included, need not be run again. */
  readonly taken: number
  /** Of the steps that were done, for placeholders of those that are left. No secrets. */
  readonly outputs: readonly StepOutput[]
  /** Steps that only the engine can run. */
  readonly left: number
  /** Where the last step that was done says the code is: below the folder, '' is the folder itself. */
  readonly directory: string
}

export interface StepOutput {
  readonly id: string | undefined
  readonly output: Readonly<Record<string, string>>
}

/** Whether the first step that does something is one that only fetches. */
export function beginsWithFetch(steps: readonly unknown[]): boolean {
  const first = steps.find(isStep)
  return first !== undefined && nameOf(first) !== undefined
}

/**
 * Fills `to`, an existing, empty, private folder. Rejects with a StorageError that names the step, with what a reader
 * rejects with, or with the signal's reason; what was written until then is never used.
 */
export async function pullSteps(
  steps: readonly unknown[],
  to: string,
  scene: StepScene,
  context: StorageContext,
  signal: AbortSignal,
): Promise<PulledSteps> {
  const outputs: StepOutput[] = []
  let directory = ''
  let taken = 0
  for (const [index, step] of steps.entries()) {
    if (isStep(step)) {
      const name = nameOf(step)
      if (name === undefined) break
      const done = await pullStep({ step, name, number: index + 1, outputs }, to, scene, context, signal)
      if (done === 'left to the engine') break
      outputs.push(done)
      directory = done.output.directory ?? directory
    }
    taken = index + 1
  }
  return {
    taken,
    outputs,
    left: steps.slice(taken).filter(isStep).length,
    directory: directory === '.' ? '' : directory,
  }
}

interface Turn {
  readonly step: Step
  readonly name: string
  readonly number: number
  /** Of the steps before it. */
  readonly outputs: readonly StepOutput[]
}

async function pullStep(
  { step, name, number, outputs }: Turn,
  to: string,
  scene: StepScene,
  context: StorageContext,
  signal: AbortSignal,
): Promise<StepOutput | 'left to the engine'> {
  try {
    const { id, requires: _requires, ...inputs } = inputsOf(step)
    const environment = (variable: string) => {
      const value = scene.environment[variable] ?? undefined
      if (value === undefined && !scene.isHere) throw new EngineKnows()
      return value
    }
    const filled = await fillInputs(inputs, { outputs: merge(outputs), environment, readers: scene.readers })
    const { folder, storage, output, isLocal } = await openFetchStep(name, filled, context, scene.readers)
    if (isLocal && !scene.isHere) return 'left to the engine'
    await fetchInto(join(to, folder), folder === '' ? to : undefined, part =>
      storage.getDirectory(undefined, part, signal),
    )
    return { id: typeof id === 'string' ? id : undefined, output: { ...output, directory: folder || '.' } }
  } catch (error) {
    if (error instanceof EngineKnows) return 'left to the engine'
    if (!(error instanceof StorageError)) throw error
    throw storageError(`Pull step ${number} (${name})`, error)
  }
}

/** A variable of the environment that only the container knows. */
class EngineKnows extends Error {}

/** A folder of the step's own is emptied first, as Prefect does it; what goes to the top is laid over what is there. */
async function fetchInto(
  folder: string,
  top: string | undefined,
  fetch: (part: string) => Promise<void>,
): Promise<void> {
  if (top === undefined) {
    await removeTree(folder)
    await mkdir(folder, { recursive: true, mode: 0o700 })
    return fetch(folder)
  }
  if ((await readdir(top)).length === 0) return fetch(top)
  const part = await mkdtemp(join(dirname(top), '.step-'))
  try {
    await fetch(part)
    await layOver(part, top)
  } finally {
    await removeTree(part)
  }
}

async function layOver(from: string, to: string): Promise<void> {
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)]
    try {
      await rename(source, target)
    } catch (error) {
      const isClash = ['ENOTEMPTY', 'EEXIST', 'EISDIR', 'ENOTDIR'].includes(errorCode(error) ?? '')
      if (!isClash) throw error
      if (entry.isDirectory() && errorCode(error) !== 'ENOTDIR') await layOver(source, target)
      else throw new StorageError(`"${entry.name}" is a file in one step and a folder in another`, { cause: error })
    }
  }
}

type Step = Readonly<Record<string, unknown>>

/** Prefect skips what is empty. */
function isStep(step: unknown): step is Step {
  return isTable(step) ? Object.keys(step).length > 0 : Boolean(step)
}

/** Undefined: not a step that only fetches, or none that Prefect would run; the engine will say so. */
function nameOf(step: Step): string | undefined {
  const names = isTable(step) ? Object.keys(step) : []
  return names.length === 1 && names[0] !== undefined ? fetchStepName(names[0]) : undefined
}

function inputsOf(step: Step): Readonly<Record<string, unknown>> {
  const [inputs] = Object.values(step)
  return isTable(inputs) ? inputs : {}
}

/** As Prefect's run_steps: each output by its id and, flat, over those before it. */
function merge(outputs: readonly StepOutput[]): Readonly<Record<string, unknown>> {
  const merged: Record<string, unknown> = {}
  for (const { id, output } of outputs) {
    if (id !== undefined) merged[id] = output
    Object.assign(merged, output)
  }
  return merged
}
