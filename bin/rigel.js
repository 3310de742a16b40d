#!/usr/bin/env node
// The command: says in one sentence where Rigel cannot run, otherwise becomes the program. Any Node can read this file.
//
// The package holds compiled JavaScript. A checkout holds TypeScript, and keeps what Node makes of it below
// node_modules, because that halves the processor time of a start.

import { existsSync } from 'node:fs'
import module from 'node:module'
import { fileURLToPath } from 'node:url'
import v8 from 'node:v8'

const [major, minor] = process.versions.node.split('.').map(Number)

if (process.platform === 'win32') {
  refuse('Rigel does not run on Windows itself; use it inside WSL, with Linux.')
} else if (major < 24 || (major === 24 && minor < 15)) {
  refuse(`Rigel needs Node.js 24.15 or newer, and this is ${process.version}.`)
} else {
  if (process.argv.includes('agent')) spareMemory()
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

// An agent computes little and waits for ever: the optimizing compilers would cost it 8 MiB of touched program text beside
// their threads and code, undici's WebAssembly parser's second compilation 8, and a nursery for new objects that grows to
// 16 in a burst and stays so. Set here because it must come before the sources, and not as options of `node`, for those
// would be handed on. Measured in docs/performance.md.
function spareMemory() {
  for (const flag of [
    '--no-opt',
    '--no-maglev',
    '--no-sparkplug',
    '--no-wasm-tier-up',
    '--no-wasm-dynamic-tiering',
    '--max-semi-space-size=1',
    '--semi-space-growth-factor=1',
  ]) {
    v8.setFlagsFromString(flag)
  }
}
