// Writes the table of settings in docs/configuration.md anew from src/config/settings.ts and config/defaults.toml.
//
// `node scripts/configuration-table.ts` after each change of a setting; a test fails while the table is not current.

import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parse } from 'smol-toml'
import { allSettings } from '../src/config/settings.ts'
import { isTable } from '../src/config/settings-file.ts'

export const configurationPage = fileURLToPath(new URL('../docs/configuration.md', import.meta.url))
const defaultsFile = fileURLToPath(new URL('../config/defaults.toml', import.meta.url))

const begin = '<!-- settings: written by scripts/configuration-table.ts -->'
const end = '<!-- end of settings -->'

/** The page with its table replaced by the one of today. */
export function renewPage(page: string): string {
  const [before, rest] = page.split(begin)
  const after = rest?.split(end)[1]
  if (before === undefined || after === undefined) throw new Error(`docs/configuration.md lacks "${begin}" or "${end}"`)
  return `${before}${begin}\n${buildTables()}\n${end}${after}`
}

function buildTables(): string {
  const defaults = parse(readFileSync(defaultsFile, 'utf8'))
  const sections = [...new Set(allSettings.map(setting => setting.section))]
  return sections.map(section => buildTable(section, defaults[section])).join('\n\n')
}

function buildTable(section: string, defaults: unknown): string {
  const rows = allSettings
    .filter(setting => setting.section === section)
    .map(setting => {
      const name = setting.key.slice(section.length + 1)
      const value = isTable(defaults) ? defaults[name] : undefined
      const shown = value === '' ? 'not set' : `\`${typeof value === 'string' ? value : JSON.stringify(value)}\``
      const env = setting.env.map(name => `\`${name}\``).join(', ')
      return `| \`${name}\` | ${env} | \`${setting.flag}\` | ${shown} | ${setting.doc} Expected: ${setting.kind.expected}. |`
    })
  return [
    `### [${section}]`,
    '',
    '| key | environment | flag | default | meaning |',
    '|---|---|---|---|---|',
    ...rows,
  ].join('\n')
}

if (import.meta.main) writeFileSync(configurationPage, renewPage(readFileSync(configurationPage, 'utf8')))
