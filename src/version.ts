// The version of this package, read from its package.json when somebody asks.

import { readFileSync } from 'node:fs'
import * as v from 'valibot'

export function readVersion(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8')
  return v.parse(v.object({ version: v.string() }), JSON.parse(text)).version
}
