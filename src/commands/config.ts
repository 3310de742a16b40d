// `rigel config`: what the settings are, where they come from, and whether a file can be used.

import { maskUrl, Secret } from '../config/secret.ts'
import { allSettings } from '../config/settings.ts'
import { isTable } from '../config/settings-file.ts'
import type { Context } from './context.ts'
import { type Cell, printJson, printTable } from './output.ts'

/** Every setting with its value and its source; secrets are masked. */
export async function viewConfig(context: Context): Promise<void> {
  const { config } = context
  const sections: Readonly<Record<string, unknown>> = { ...config }
  const rows = allSettings.map(setting => {
    const section = sections[setting.section]
    const value = isTable(section) ? section[setting.name] : undefined
    return { key: setting.key, value: showValue(value), source: config.sources[setting.key] }
  })
  if (context.format === 'json') {
    printJson(context, Object.fromEntries(rows.map(({ key, value, source }) => [key, { value, source }])))
    return
  }
  await printTable(
    context,
    ['setting', 'value', 'source'],
    rows.map(({ key, value, source }) => [
      key,
      typeof value === 'object' && value !== null ? value.join(', ') : value,
      source,
    ]),
  )
}

/** Comes this far only when the configuration could be read. */
export function validateConfig(context: Context, file: string | undefined): void {
  if (context.format === 'json') {
    printJson(context, { valid: true, warnings: context.config.warnings })
    return
  }
  context.stdout.write(`${file === undefined ? 'the configuration' : file} is valid\n`)
}

function showValue(value: unknown): Cell | readonly string[] {
  if (value instanceof Secret) return value.toString()
  if (typeof value === 'string') return maskUrl(value)
  if (Array.isArray(value)) return value.map(String)
  return typeof value === 'number' || typeof value === 'boolean' ? value : null
}
