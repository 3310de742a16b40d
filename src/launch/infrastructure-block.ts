// Reads a deployment's infrastructure block and lays the deployment's overrides over it, as Prefect 2's agent does.
//
// In: the block document (with secrets) or none, and the overrides. Out: the block's type and its settings, those that
// all types share already checked and turned into text. Source: prefect 2.20.25 agent.py and infrastructure/base.py.

import type { BlockDocument, Deployment } from '../prefect/types.ts'
import { LaunchError } from './errors.ts'

export interface InfrastructureBlock {
  /** The block type's slug: `process`, `docker-container`, `kubernetes-job`, or one that nobody here knows. */
  readonly type: string
  /** The fields of the block after overrides. Holds secrets. Made for this run alone, shared with nobody. */
  readonly settings: Readonly<Record<string, unknown>>
  /** Read from `settings`; `null` means "unset this variable". */
  readonly env: Readonly<Record<string, string | null>>
  readonly labels: Readonly<Record<string, string>>
  readonly name: string | undefined
  /** The block's own command; undefined when it has none or an empty one, which is the same to Prefect. */
  readonly command: readonly string[] | undefined
  /** Overrides that had no effect, because without a block Prefect applies none: worth a warning. Keys only. */
  readonly ignoredOverrides: readonly string[]
}

/** The overrides as the wire has them: servers 2.x send `infra_overrides`, newer ones `job_variables`. */
export function deploymentOverrides(
  deployment: Pick<Deployment, 'infra_overrides' | 'job_variables'>,
): Readonly<Record<string, unknown>> {
  return deployment.infra_overrides ?? deployment.job_variables ?? {}
}

/** Throws a LaunchError when the block has no type, an override does not fit, or a common field is of the wrong kind. */
export function readInfrastructureBlock(
  document: BlockDocument | undefined,
  overrides: Readonly<Record<string, unknown>>,
): InfrastructureBlock {
  if (!document) {
    // Who fetches is the agent's own business and needs no block.
    const ignoredOverrides = Object.keys(overrides).filter(key => key !== 'fetch')
    return { ...readCommonFields({}), type: 'process', ignoredOverrides }
  }
  // The schema's block type decides, as in Prefect's Block._from_block_document.
  const type = document.block_schema?.block_type?.slug ?? document.block_type?.slug
  if (!type)
    throw new LaunchError(`Infrastructure block "${document.name ?? document.id}" does not say its block type.`)
  const settings = structuredClone(document.data ?? {})
  for (const [key, value] of Object.entries(overrides)) applyOverride(settings, key, value)
  if (settings.type !== undefined && settings.type !== type) {
    throw new LaunchError(
      `Field "type" of a ${type} block must be "${type}"; an override cannot change the block's type.`,
    )
  }
  return { ...readCommonFields(settings), type, ignoredOverrides: [] }
}

/** `{"a.b.c": v}` sets c in b in a. Prefect demands that a and b exist, merges nothing and converts nothing. */
function applyOverride(settings: Record<string, unknown>, key: string, value: unknown): void {
  const parts = key.split('.')
  const last = parts.pop() ?? ''
  let at = settings
  for (const [index, part] of parts.entries()) {
    const next = Object.hasOwn(at, part) ? at[part] : undefined
    if (!isObject(next)) {
      const path = parts.slice(0, index + 1).join('.')
      throw new LaunchError(
        `Deployment override "${key}" does not fit the infrastructure block: "${path}" is not an object in it.`,
      )
    }
    at = next
  }
  if (parts.length === 0 && last === 'command' && typeof value === 'string') {
    throw new LaunchError(
      'Deployment override "command" is one text; give it as a list of words, such as ["python", "job.py"], for no shell is used.',
    )
  }
  // Not an assignment: a key such as "__proto__" must become an ordinary field, and never touch a prototype.
  Object.defineProperty(at, last, {
    value: structuredClone(value),
    writable: true,
    enumerable: true,
    configurable: true,
  })
}

function readCommonFields(settings: Record<string, unknown>): Omit<InfrastructureBlock, 'type' | 'ignoredOverrides'> {
  const command = readCommand(settings.command)
  const name = settings.name ?? undefined
  if (name !== undefined && typeof name !== 'string') throw wrongField('name', 'a text')
  return {
    settings,
    env: readTexts('env', settings.env, 'a text or null', value => (value === null ? null : readText(value))),
    labels: readTexts('labels', settings.labels, 'a text', readText),
    name: name === '' ? undefined : name,
    command: command.length > 0 ? command : undefined,
  }
}

function readCommand(value: unknown): string[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) throw wrongField('command', 'a list of words')
  return value.map((word, index) => {
    const text = readText(word)
    if (text === undefined || text.includes('\0')) throw wrongField(`command[${index}]`, 'a text')
    return text
  })
}

function readTexts<Item>(
  field: string,
  value: unknown,
  expected: string,
  read: (item: unknown) => Item | undefined,
): Record<string, Item> {
  const object = value ?? {}
  if (!isObject(object)) throw wrongField(field, 'an object')
  const entries = Object.entries(object).map(([key, item]): [string, Item] => {
    const text = read(item)
    if (text === undefined) throw wrongField(`${field}.${key}`, expected)
    return [key, text]
  })
  return Object.fromEntries(entries)
}

/** Prefect's blocks accept numbers and booleans for texts and write them as Python does. */
function readText(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  if (typeof value === 'number') return String(value)
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  return undefined
}

function wrongField(field: string, expected: string): LaunchError {
  return new LaunchError(`Field "${field}" of the infrastructure block must be ${expected}.`)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
