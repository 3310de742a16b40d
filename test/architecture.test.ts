// Keeps the house as docs/architecture.md draws it: reads every import under src, and what only some rooms may touch.

import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import test from 'node:test'
import {
  findCircles,
  findDriverBreaks,
  findFloorBreaks,
  findHomeless,
  findStrayPackages,
  findStrayPowers,
  type Sources,
} from './support/architecture.ts'

const root = join(import.meta.dirname, '..')

async function readSources(): Promise<Sources> {
  const entries = await readdir(join(root, 'src'), { recursive: true, withFileTypes: true })
  const paths = entries
    .filter(entry => entry.isFile() && entry.name.endsWith('.ts'))
    .map(e => join(e.parentPath, e.name))
  const texts = paths.map(
    async path => [relative(join(root, 'src'), path), await readFile(path, 'utf8')] satisfies [string, string],
  )
  return new Map(await Promise.all(texts))
}

/** A house of one or two files. */
function house(files: Readonly<Record<string, string>>): Sources {
  return new Map(Object.entries(files))
}

test('a file imports only from floors below, or from its own room', async () => {
  assert.deepEqual(findFloorBreaks(await readSources()), [])
})

test('nothing is imported in a circle', async () => {
  assert.deepEqual(findCircles(await readSources()), [])
})

test('a driver is loaded when it is used, and knows no other driver', async () => {
  assert.deepEqual(findDriverBreaks(await readSources()), [])
})

test('each package has one home', async () => {
  assert.deepEqual(findStrayPackages(await readSources()), [])
})

test('every package that is depended on has a home', async () => {
  const { dependencies }: { dependencies: Record<string, string> } = JSON.parse(
    await readFile(join(root, 'package.json'), 'utf8'),
  )
  assert.deepEqual(findHomeless(Object.keys(dependencies)), [])
})

test('only config reads the environment; only the command line reads arguments, hears signals and ends the process', async () => {
  assert.deepEqual(findStrayPowers(await readSources()), [])
})

const broken: readonly {
  name: string
  find: (sources: Sources) => readonly string[]
  files: Record<string, string>
}[] = [
  { name: 'an import upward', find: findFloorBreaks, files: { 'prefect/a.ts': `import { b } from '../agent/b.ts'` } },
  { name: 'one wing in another', find: findFloorBreaks, files: { 'agent/a.ts': `import '../server/b.ts'` } },
  {
    name: 'storage that knows Prefect',
    find: findFloorBreaks,
    files: { 'storage/a.ts': `import type { B } from '../prefect/types.ts'` },
  },
  {
    name: 'launch beyond the seams',
    find: findFloorBreaks,
    files: { 'launch/a.ts': `import type {\n  B,\n} from '../prefect/client.ts'` },
  },
  {
    name: 'a lazy import upward',
    find: findFloorBreaks,
    files: { 'prefect/a.ts': `await import('../commands/b.ts')` },
  },
  { name: 'a re-export upward', find: findFloorBreaks, files: { 'errors.ts': `export { b } from './agent/b.ts'` } },
  { name: 'a room that nobody drew', find: findFloorBreaks, files: { 'utils/a.ts': `import '../errors.ts'` } },
  { name: 'a circle', find: findCircles, files: { 'agent/a.ts': `import './b.ts'`, 'agent/b.ts': `import './a.ts'` } },
  {
    name: 'a driver that is always loaded',
    find: findDriverBreaks,
    files: { 'storage/registry.ts': `import('./s3.ts')`, 'storage/cache.ts': `import { readS3 } from './s3.ts'` },
  },
  {
    name: 'a driver that uses another',
    find: findDriverBreaks,
    files: {
      'infrastructure/registry.ts': `import('./process.ts'); import('./docker.ts')`,
      'infrastructure/docker-logs.ts': `import { readLines } from './process-lines.ts'`,
    },
  },
  {
    name: 'a package away from home',
    find: findStrayPackages,
    files: { 'agent/a.ts': `import x from 'undici/lib/x.js'` },
  },
  { name: 'a package without a home', find: findStrayPackages, files: { 'agent/a.ts': `import x from 'left-pad'` } },
  {
    name: 'a room that reads the environment',
    find: findStrayPowers,
    files: { 'agent/a.ts': `const a = process.env.A` },
  },
  {
    name: 'a room that hears signals',
    find: findStrayPowers,
    files: { 'agent/a.ts': `process.once('SIGTERM', stop)` },
  },
  { name: 'a room that ends the process', find: findStrayPowers, files: { 'commands/a.ts': `process.exitCode = 2` } },
]

for (const { name, find, files } of broken) {
  test(`these rules find ${name}`, () => assert.equal(find(house(files)).length, 1))
}

const sound: Readonly<Record<string, string>> = {
  'cli.ts': `import('./commands/a.ts')\nprocess.exitCode = process.argv.length`,
  'commands/a.ts': `// process.env is read elsewhere\nimport { b } from '../agent/b.ts'\nimport { c } from '../config/c.ts'`,
  'agent/b.ts': `import { d } from '../prefect/d.ts'\nimport type { E } from './e.ts'`,
  'launch/f.ts': `import type { G } from '../prefect/types.ts'`,
  'infrastructure/registry.ts': `import type { H } from './process.ts'\nconst load = () => import('./process.ts')`,
  'infrastructure/process.ts': `import './process-table.ts'`,
}

test('these rules find nothing in a sound house', () => {
  const sources = house(sound)
  const rules = [findFloorBreaks, findCircles, findDriverBreaks, findStrayPackages, findStrayPowers]
  assert.deepEqual(
    rules.flatMap(find => find(sources)),
    [],
  )
})
