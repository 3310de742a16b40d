#!/usr/bin/env node
// The command: says in one sentence where Rigel cannot run, otherwise becomes the program. Any Node can read this file.
//
// The package holds compiled JavaScript. A checkout holds TypeScript, and keeps what Node makes of it below
// node_modules, because that halves the processor time of a start.

import { existsSync } from 'node:fs'
import module from 'node:module'
import { fileURLToPath } from 'node:url'

const [major, minor] = process.versions.node.split('.').map(Number)

if (process.platform === 'win32') {
  refuse('Rigel does not run on Windows itself; use it inside WSL, with Linux.')
} else if (major < 24 || (major === 24 && minor < 15)) {
  refuse(`Rigel needs Node.js 24.15 or newer, and this is ${process.version}.`)
} else {
  const compiled = new URL('../dist/cli.js', import.meta.url)
  const source = new URL('../src/cli.ts', import.meta.url)
  const isCheckout = existsSync(source)
  if (isCheckout) module.enableCompileCache(fileURLToPath(new URL('../node_modules/.cache/compiled', import.meta.url)))
  await import(isCheckout ? source : compiled)
}

function refuse(sentence) {
  console.error(sentence)
  process.exitCode = 1
}
