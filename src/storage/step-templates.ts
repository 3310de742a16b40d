// Placeholders in the inputs of pull steps, as Prefect 2.20 and 3 fill them (utilities/templating.py): outputs of earlier
// steps, `{{ prefect.blocks.<type>.<name> }}`, `{{ prefect.variables.<name> }}` and `{{ $NAME }}` of the environment.
//
// In: inputs as the deployment holds them. Out: the same with values, which may be secrets: never log or store them.

import { StorageError } from './storage.ts'

/** Reads what placeholders name on the server; undefined when it is not there. Data of blocks comes with its secrets. */
export interface StepReaders {
  block(slug: string, name: string): Promise<Readonly<Record<string, unknown>> | undefined>
  blockById(id: string): Promise<Readonly<Record<string, unknown>> | undefined>
  variable(name: string): Promise<unknown>
}

export interface StepValues {
  readonly outputs: Readonly<Record<string, unknown>>
  /** Undefined when the variable is not set. May throw when only the run's own environment can say. */
  readonly environment: (name: string) => string | undefined
  readonly readers: StepReaders
}

type Inputs = Readonly<Record<string, unknown>>

/** Rejects with a StorageError that names the placeholder, or with what a reader rejects with. */
export async function fillInputs(inputs: Inputs, { outputs, environment, readers }: StepValues): Promise<Inputs> {
  const own = applyValues(inputs, name => lookUp(outputs, name), environment)
  const read = await resolveVariables(await resolveBlocks(own, readers), readers)
  // Once more with the environment alone: text that came from a block may name variables.
  const filled = applyValues(read, environment, environment)
  return isTable(filled) ? filled : {}
}

const placeholder = /\{\{\s*([\p{L}\p{N}_.\-[\]$]+)\s*\}\}/gu
const blockPrefix = 'prefect.blocks.'
const variablePrefix = 'prefect.variables.'

/** The name, when the text is one placeholder and nothing else. */
function onlyName(text: string): string | undefined {
  const names = [...text.matchAll(placeholder)]
  return names.length === 1 && names[0]?.[0] === text ? names[0][1] : undefined
}

/** Undefined: the input has no value, so it is left out. */
function applyValues(
  template: unknown,
  value: (name: string) => unknown,
  environment: (name: string) => string | undefined,
): unknown {
  if (Array.isArray(template)) {
    return template.map(item => applyValues(item, value, environment)).filter(item => item !== undefined)
  }
  if (isTable(template)) {
    const entries = Object.entries(template).map(([key, item]) => [key, applyValues(item, value, environment)] as const)
    return Object.fromEntries(entries.filter(([, item]) => item !== undefined))
  }
  if (typeof template !== 'string') return template
  const only = onlyName(template)
  if (only !== undefined && !only.startsWith('$') && !isReference(only)) return value(only)
  return template.replace(placeholder, (whole, name: string) => {
    if (isReference(name)) return whole
    return textOf(name.startsWith('$') ? environment(name.replace(/^\$+/, '')) : value(name))
  })
}

function isReference(name: string): boolean {
  return name.startsWith(blockPrefix) || name.startsWith(variablePrefix)
}

/** As Python's `str()` writes it; nothing for what is not there. */
function textOf(value: unknown): string {
  if (value === undefined) return ''
  if (typeof value === 'string') return value
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  return value === null ? 'None' : typeof value === 'number' ? String(value) : JSON.stringify(value)
}

/** `a.b[1].c` in nested tables and lists. */
function lookUp(from: unknown, path: string): unknown {
  let at = from
  for (const key of path.replaceAll('[', '.').replaceAll(']', '').split('.')) {
    if (Array.isArray(at)) at = at[Number(key)]
    else if (isTable(at) && Object.hasOwn(at, key)) at = at[key]
    else return undefined
  }
  return at
}

async function resolveBlocks(template: unknown, readers: StepReaders): Promise<unknown> {
  if (Array.isArray(template)) return Promise.all(template.map(item => resolveBlocks(item, readers)))
  if (isTable(template)) {
    const id = isTable(template.$ref) ? template.$ref.block_document_id : undefined
    if (typeof id === 'string') return (await readers.blockById(id)) ?? missing(`block ${id}`)
    return mapTable(template, item => resolveBlocks(item, readers))
  }
  if (typeof template !== 'string' || !template.includes(blockPrefix)) return template
  const only = onlyName(template)
  if (!only?.startsWith(blockPrefix)) {
    if (![...template.matchAll(placeholder)].some(([, name]) => name?.startsWith(blockPrefix))) return template
    throw new StorageError('A placeholder of a block must stand alone, without text around it')
  }
  const [slug = '', name = '', ...path] = only.slice(blockPrefix.length).split('.')
  const data = (await readers.block(slug, name)) ?? missing(`block "${slug}/${name}"`)
  const isSystemBlock = Object.keys(data).length === 1 && 'value' in data
  const value = isSystemBlock && !path[0]?.startsWith('value') ? data.value : data
  if (path.length === 0) return value
  return lookUp(value, path.join('.')) ?? missing(`field "${path.join('.')}" in block "${slug}/${name}"`)
}

/** A variable that is not there is an empty text, as in Prefect. */
async function resolveVariables(template: unknown, readers: StepReaders): Promise<unknown> {
  if (Array.isArray(template)) return Promise.all(template.map(item => resolveVariables(item, readers)))
  if (isTable(template)) return mapTable(template, item => resolveVariables(item, readers))
  if (typeof template !== 'string' || !template.includes(variablePrefix)) return template
  const only = onlyName(template)
  if (only?.startsWith(variablePrefix)) return (await readers.variable(only.slice(variablePrefix.length))) ?? ''
  let text = template
  for (const [whole, name = ''] of template.matchAll(placeholder)) {
    if (!name.startsWith(variablePrefix)) continue
    text = text.replaceAll(whole, textOf(await readers.variable(name.slice(variablePrefix.length))))
  }
  return text
}

async function mapTable(table: Inputs, map: (item: unknown) => Promise<unknown>): Promise<Inputs> {
  return Object.fromEntries(await Promise.all(Object.entries(table).map(async ([key, item]) => [key, await map(item)])))
}

function missing(what: string): never {
  throw new StorageError(`There is no ${what} on the server`)
}

export function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
