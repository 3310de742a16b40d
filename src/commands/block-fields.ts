// Fields of a block as flags: `--bucket-path my/flows` or `--field bucket_path=my/flows`, and `@FILE` or `-` (standard input) as the
// value of what no other user of the machine should see in a command line.

import { readFile } from 'node:fs/promises'
import process from 'node:process'
import { text } from 'node:stream/consumers'
import { ConfigError } from '../config/config-error.ts'
import { isTable } from '../config/settings-file.ts'
import { UserError } from '../errors.ts'

type Json = Readonly<Record<string, unknown>>

/** `schema` is the block type's JSON schema. Throws a ConfigError or UserError that never shows a value. */
export async function readFieldFlags(flags: readonly string[], schema: Json): Promise<Record<string, unknown>> {
  const fields: Record<string, unknown> = {}
  for (const flag of flags) {
    const at = flag.indexOf('=')
    if (at < 1) throw new ConfigError('--field takes NAME=VALUE, or NAME=@FILE.')
    const name = findName(flag.slice(0, at), schema)
    if (Object.hasOwn(fields, name)) throw new ConfigError(`Field "${name}" is given twice.`)
    fields[name] = await readValue(name, flag.slice(at + 1), schema)
  }
  return fields
}

/** The schema's own name of a field that may be written with dashes for underscores; a name that it does not have is left to the check. */
function findName(given: string, { properties }: Json): string {
  const known = isTable(properties) ? Object.keys(properties) : []
  if (known.includes(given)) return given
  const plain = given.replaceAll('-', '_')
  return known.find(name => name.replaceAll('-', '_') === plain) ?? plain
}

async function readValue(name: string, value: string, schema: Json): Promise<unknown> {
  if (value === '-' || value === '@-') return convert(withoutLineEnd(await text(process.stdin)), name, schema)
  if (value.startsWith('@')) return convert(await readText(name, value.slice(1)), name, schema)
  const read = convert(value, name, schema)
  if (isSecret(name, schema) && !isReference(read)) {
    throw new ConfigError(`Field "${name}" is a secret, and every user of this machine sees command lines.`, {
      hint: `Write --field ${name}=@FILE with a file that holds it, --field ${name}=- for standard input, or use --file.`,
    })
  }
  return read
}

/** The name of another block is no secret. */
function isReference(value: unknown): boolean {
  return isTable(value) && Object.keys(value).join() === '$ref'
}

async function readText(name: string, file: string): Promise<string> {
  try {
    return withoutLineEnd(await readFile(file, 'utf8'))
  } catch (cause) {
    throw new UserError(`Could not read the file ${file} of field "${name}".`, { cause })
  }
}

function withoutLineEnd(text: string): string {
  return text.replace(/\r?\n$/, '')
}

function isSecret(name: string, { secret_fields: secrets }: Json): boolean {
  return Array.isArray(secrets) && secrets.some(secret => secret === name || String(secret).startsWith(`${name}.`))
}

/** JSON, unless the schema says that it is a text or it is none. */
function convert(value: string, name: string, { properties }: Json): unknown {
  const property = isTable(properties) && Object.hasOwn(properties, name) ? properties[name] : undefined
  if (isText(property)) return value
  try {
    return JSON.parse(value)
  } catch {
    return value
  }
}

/** Prefect 3 writes a text that may be missing as `anyOf` of a text and null, and its secrets as one of a text and anything. */
function isText(property: unknown): boolean {
  if (!isTable(property)) return false
  if (property.format === 'password') return true
  const kinds = Array.isArray(property.anyOf) ? property.anyOf : [property]
  const types = kinds.map(kind => (isTable(kind) ? kind.type : undefined)).filter(type => type !== 'null')
  return types.length > 0 && types.every(type => type === 'string')
}
