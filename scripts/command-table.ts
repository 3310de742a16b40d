// Writes the reference in docs/command-line.md anew from src/commands/commands.ts.
//
// `node scripts/command-table.ts` after each change of a command; a test fails while the page is not current.

import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { CommandRow } from '../src/commands/command-row.ts'
import { commands } from '../src/commands/commands.ts'

export const commandPage = fileURLToPath(new URL('../docs/command-line.md', import.meta.url))

const begin = '<!-- commands: written by scripts/command-table.ts -->'
const end = '<!-- end of commands -->'

/** The page with its reference replaced by the one of today. */
export function renewPage(page: string): string {
  const [before, rest] = page.split(begin)
  const after = rest?.split(end)[1]
  if (before === undefined || after === undefined) throw new Error(`docs/command-line.md lacks "${begin}" or "${end}"`)
  return `${before}${begin}\n${commands.map(buildSection).join('\n\n')}\n${end}${after}`
}

function buildSection({ path, args, doc, options = [], settings }: CommandRow): string {
  const rows = options.map(option => {
    const often = option.repeat ? ' May be given many times.' : ''
    const short = (option.aliases ?? []).map(alias => `${alias}, `).join('')
    return `| \`${short}${option.flags}\` | ${option.doc}${often} |`
  })
  const table = rows.length === 0 ? [] : ['', '| option | meaning |', '|---|---|', ...rows]
  const sections = settings.map(section => `\`[${section}]\``).join(', ')
  return [
    `### rigel ${path}${args ? ` ${args}` : ''}`,
    '',
    doc,
    ...table,
    '',
    `Flags of the settings ${sections} are taken, too.`,
  ].join('\n')
}

if (import.meta.main) writeFileSync(commandPage, renewPage(readFileSync(commandPage, 'utf8')))
