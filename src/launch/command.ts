// Decides what is run: the block's own command, Prefect's engine for a Python flow, or an executable of the workspace.
//
// In: the block's command, the deployment's entrypoint, and what the caller found in the workspace. Out: one of four
// plans; which interpreter or container command carries it out is decided in run-spec.ts.

import { posix } from 'node:path'

import type { Value } from '../infrastructure/infrastructure.ts'
import { LaunchError } from './errors.ts'
import { splitWords } from './shell-words.ts'

/** What the caller found in the workspace at `entrypointPath`. A directory counts as missing. */
export type WorkspaceFact = 'missing' | 'file' | 'executable'

export type CommandPlan =
  /** Prefect's engine loads the deployment's Python flow; how it is started depends on the infrastructure. */
  | { readonly kind: 'engine' }
  /** The block's own command, taken as it is. `isEngine`: it starts an engine of Prefect. */
  | { readonly kind: 'command'; readonly command: readonly string[]; readonly isEngine: boolean }
  /** A program that knows nothing of Prefect: the agent reports for it. */
  | { readonly kind: 'executable'; readonly command: readonly Value[] }

const identifier = String.raw`[\p{ID_Start}_]\p{ID_Continue}*`
const dotted = String.raw`${identifier}(?:\.${identifier})*`
/** `path/to/file.py:flow`, or `package.module:flow`, which Prefect's import takes as well. */
const pythonFile = new RegExp(String.raw`^(?:.+\.py|${dotted}):${dotted}$`, 'u')
/** `package.module.flow`: Prefect imports it without asking any storage. */
const modulePath = new RegExp(String.raw`^${identifier}(?:\.${identifier})+$`, 'u')
const scriptFile = new RegExp(String.raw`^.+\.([cm]?[jt]s):${dotted}$`, 'u')

/** Prefect as a word of its own, as a program or a module, but not as a folder on the way to something else. */
const namesPrefect = /(?:^|[\s;&|('"/])prefect(?:\.[\w.]+)?(?=$|[\s;&|)'"])/

/**
 * The path in the workspace, relative to it, whose WorkspaceFact `planCommand` needs; undefined when it needs none.
 * Throws a LaunchError when the entrypoint cannot be split into words.
 */
export function entrypointPath(entrypoint: string): string | undefined {
  const text = entrypoint.trim()
  if (pythonFile.test(text) || scriptFile.test(text)) return undefined
  const first = splitWords(text)[0]
  if (!first || posix.isAbsolute(first)) return undefined
  const path = posix.normalize(first)
  return path === '.' || path === '..' || path.startsWith('../') || path.endsWith('/') ? undefined : path
}

/** Throws a LaunchError, a sentence for the run's owner, when nothing can be run. */
export function planCommand(input: {
  readonly blockCommand: readonly string[] | undefined
  readonly entrypoint: string | null
  /** What is at `entrypointPath(entrypoint)`; `missing` when there is no workspace or that path is undefined. */
  readonly found: WorkspaceFact
}): CommandPlan {
  const { blockCommand, found } = input
  if (blockCommand && blockCommand.length > 0) {
    return { kind: 'command', command: blockCommand, isEngine: blockCommand.some(word => namesPrefect.test(word)) }
  }
  const entrypoint = input.entrypoint?.trim()
  if (!entrypoint) {
    throw new LaunchError(
      'The deployment has neither an entrypoint nor a command in its infrastructure block, so there is nothing to run.',
    )
  }
  // Before the Python forms, for "flow.ts" could be a module's name too.
  const script = scriptFile.exec(entrypoint)
  if (script) {
    throw new LaunchError(
      `Entrypoint "${entrypoint}" names a function in a .${script[1]} file; only Python flows and executables can be run so far.`,
    )
  }
  if (pythonFile.test(entrypoint)) return { kind: 'engine' }
  if (modulePath.test(entrypoint) && found === 'missing') return { kind: 'engine' }
  return { kind: 'executable', command: planExecutable(entrypoint, found) }
}

function planExecutable(entrypoint: string, found: WorkspaceFact): readonly Value[] {
  const [first, ...rest] = splitWords(entrypoint)
  if (!first) throw new LaunchError(`Entrypoint ${JSON.stringify(entrypoint)} names no program.`)
  const path = entrypointPath(entrypoint)
  if (path === undefined || found === 'missing') return [first, ...rest]
  if (found === 'executable') return [{ in: 'workspace', path }, ...rest]
  // A plain name may still be a program on PATH, with a file of the same name beside the code by chance.
  if (!first.includes('/') && !modulePath.test(entrypoint)) return [first, ...rest]
  throw new LaunchError(
    `Entrypoint "${first}" is a file of the flow code but not executable: set its executable bit, or name the program that reads it, such as "sh ${first}".`,
  )
}
