// Fields of a block as flags: `--field bucket_path=my/flows`, and `--field aws_secret_access_key=@FILE` for what no other user
// of the machine should see in a command line.

import { readFile } from 'node:fs/promises'
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
    const name = flag.slice(0, at)
    fields[name] = await readValue(name, flag.slice(at + 1), schema)
  }
  return fields
}

async function readValue(name: string, value: string, schema: Json): Promise<unknown> {
  if (value.startsWith('@')) return convert(await readText(name, value.slice(1)), name, schema)
  const read = convert(value, name, schema)
  if (isSecret(name, schema) && !isReference(read)) {
    throw new ConfigError(`Field "${name}" is a secret, and every user of this machine sees command lines.`, {
      hint: `Write --field ${name}=@FILE, with a file that holds it (/dev/stdin is one), or use --file.`,
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
    return (await readFile(file, 'utf8')).replace(/\r?\n$/, '')
  } catch (cause) {
    throw new UserError(`Could not read the file ${file} of field "${name}".`, { cause })
  }
}

function isSecret(name: string, { secret_fields: secrets }: Json): boolean {
  return Array.isArray(secrets) && secrets.some(secret => secret === name || String(secret).startsWith(`${name}.`))
}

/** JSON, unless the schema says that it is a text or it is none. */
function convert(value: string, name: string, { properties }: Json): unknown {
  const property = isTable(properties) && Object.hasOwn(properties, name) ? properties[name] : undefined
  if (isTable(property) && property.type === 'string') return value
  try {
    return JSON.parse(value)
  } catch {
    return value
  }
}
