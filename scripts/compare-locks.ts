// Exits 0 when node_modules of the checkout named by the first argument holds what its package-lock.json asks for.
// Both are npm's lists by path; an optional package may be absent, because it is for another platform.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'

interface Package {
  readonly integrity?: string
  readonly optional?: boolean
}

function readPackages(root: string, file: string): Map<string, Package> {
  const lock: { readonly packages: Record<string, Package> } = JSON.parse(readFileSync(join(root, file), 'utf8'))
  return new Map(Object.entries(lock.packages).filter(([path]) => path !== ''))
}

const root = process.argv[2] ?? '.'
const wanted = readPackages(root, 'package-lock.json')
const present = readPackages(root, 'node_modules/.package-lock.json')

const isComplete = [...wanted].every(([path, { integrity, optional }]) => {
  const found = present.get(path)
  return found ? found.integrity === integrity : optional === true
})
process.exitCode = isComplete && [...present.keys()].every(path => wanted.has(path)) ? 0 : 1
