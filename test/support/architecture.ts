// The rules of the house (docs/architecture.md) as functions over source text.
//
// In: files by path below src. Out: one sentence for each line that breaks a rule; none when all is well.

import { posix } from 'node:path'

/** Paths below src, with their text. */
export type Sources = ReadonlyMap<string, string>

interface Import {
  readonly from: string
  /** A path below src, or a package's name. */
  readonly to: string
  readonly isOwn: boolean
  readonly isType: boolean
  readonly isLazy: boolean
}

/** From the ground up; a file imports from floors below its own, or from its own room. */
const FLOORS: readonly (readonly string[])[] = [
  ['async', 'logger.ts', 'errors.ts', 'version.ts', 'proxy.ts'],
  ['prefect', 'launch', 'storage', 'infrastructure', 'config'],
  ['agent', 'server', 'engine'],
  ['commands', 'index.ts'],
  ['cli.ts'],
]

/** What a room may use of its own floor: `launch` is pure and speaks of what the two seams describe. */
const SEAMS: Readonly<Record<string, readonly string[]>> = {
  launch: ['prefect/types.ts', 'infrastructure/infrastructure.ts'],
}

/** Where each package may be imported: a file, or the beginning of a path. A type may be named in the same places. */
const HOMES: Readonly<Record<string, readonly string[]>> = {
  '@aws-sdk/client-s3': ['storage/s3'],
  '@hono/node-server': ['server/'],
  '@kubernetes/client-node': ['infrastructure/kubernetes'],
  ajv: ['commands/'],
  'basic-ftp': ['storage/ftp'],
  'cli-table3': ['commands/'],
  commander: ['cli.ts', 'commands/'],
  croner: ['server/'],
  dockerode: ['infrastructure/docker'],
  execa: ['storage/', 'infrastructure/process'],
  hono: ['server/'],
  ignore: ['storage/'],
  // The agent's lock on its state folder is one that the kernel gives back when it dies: SQLite's.
  'node:sqlite': ['server/', 'agent/lock.ts'],
  'p-queue': ['agent/'],
  pino: ['logger.ts'],
  rfc6902: ['infrastructure/kubernetes'],
  'smol-toml': ['config/'],
  ssh2: ['storage/sftp'],
  tar: ['storage/', 'infrastructure/docker'],
  undici: ['prefect/', 'storage/http.ts', 'storage/http-lanes.ts', 'storage/undici-parts.d.ts'],
  valibot: [''],
  yauzl: ['storage/archive'],
  yaml: ['commands/', 'config/'],
}

/** Programs of their own, started by the file that names them: they have arguments, an environment and an end. */
const PROGRAMS: readonly string[] = ['infrastructure/process-exec.ts']

/** What belongs to one place only, as it stands in the text. */
const OWNED: readonly { readonly what: string; readonly pattern: RegExp; readonly home: string }[] = [
  { what: 'reads process.env', pattern: /\bprocess\.env\b|\benv\b[^'\n]*\} from 'node:process'/, home: 'config/' },
  { what: 'reads process.argv', pattern: /\bprocess\.argv\b|\bargv\b[^'\n]*\} from 'node:process'/, home: 'cli.ts' },
  { what: 'hears signals', pattern: /\bprocess\.(on|once|addListener)\(\s*['"]SIG/, home: 'cli.ts' },
  { what: 'ends the process', pattern: /\bprocess\.exit(Code\s*=|\()/, home: 'cli.ts' },
]

export function findFloorBreaks(sources: Sources): readonly string[] {
  return readImports(sources).flatMap(({ from, to, isOwn }) => {
    if (!isOwn || room(from) === room(to)) return []
    if (floor(from) === undefined) return [`${from} is in no room of the house`]
    if ((floor(to) ?? -1) < (floor(from) ?? -1)) return []
    if (SEAMS[room(from)]?.includes(to)) return []
    return [`${from} imports ${to}, which is not on a floor below`]
  })
}

/** Circles of imports at run time; a circle of types alone harms nobody. */
export function findCircles(sources: Sources): readonly string[] {
  const edges = new Map<string, string[]>()
  for (const { from, to, isOwn, isType, isLazy } of readImports(sources)) {
    if (isOwn && !isType && !isLazy) edges.set(from, [...(edges.get(from) ?? []), to])
  }
  const done = new Set<string>()
  const circles: string[] = []
  const walk = (file: string, trail: readonly string[]): void => {
    const at = trail.indexOf(file)
    if (at >= 0) circles.push([...trail.slice(at), file].join(' -> '))
    if (at >= 0 || done.has(file)) return
    for (const next of edges.get(file) ?? []) walk(next, [...trail, file])
    done.add(file)
  }
  for (const file of edges.keys()) walk(file, [])
  return circles
}

/**
 * Drivers are what a room's registry.ts imports lazily, with the files whose name begins with theirs. No other file of
 * the room imports one, except lazily from the registry, so that nobody loads a driver that they do not use.
 */
export function findDriverBreaks(sources: Sources): readonly string[] {
  const imports = readImports(sources)
  const drivers = imports
    .filter(({ from, isOwn, isLazy }) => isOwn && isLazy && posix.basename(from) === 'registry.ts')
    .map(({ to }) => to.replace(/\.ts$/, ''))
  // The shortest, for what shares the beginning of its name is one family: `s3` and `s3-bucket`.
  const driverOf = (file: string): string | undefined =>
    drivers
      .filter(driver => file === `${driver}.ts` || file.startsWith(`${driver}-`))
      .toSorted((a, b) => a.length - b.length)[0]
  return imports.flatMap(({ from, to, isType, isLazy }) => {
    const driver = driverOf(to)
    if (driver === undefined || driverOf(from) === driver || isType) return []
    if (isLazy && driverOf(from) === undefined) return []
    return [`${from} imports ${to}, which belongs to the driver ${posix.basename(driver)}`]
  })
}

export function findStrayPackages(sources: Sources): readonly string[] {
  return readImports(sources).flatMap(({ from, to, isOwn }) => {
    if (isOwn) return []
    const homes = HOMES[to] ?? (to.startsWith('node:') ? [''] : [])
    if (homes.some(home => from.startsWith(home))) return []
    return [`${from} imports ${to}, whose home is ${homes.join(', ') || 'nowhere: give it one'}`]
  })
}

export function findStrayPowers(sources: Sources): readonly string[] {
  const rooms = [...sources].filter(([file]) => !PROGRAMS.includes(file))
  return rooms.flatMap(([file, text]) =>
    OWNED.filter(({ pattern, home }) => !file.startsWith(home) && pattern.test(withoutComments(text))).map(
      ({ what, home }) => `${file} ${what}, which only ${home} does`,
    ),
  )
}

/** Names of packages without a home, of those that package.json depends on. */
export function findHomeless(dependencies: readonly string[]): readonly string[] {
  return dependencies.filter(name => !(name in HOMES))
}

function room(file: string): string {
  return file.split('/')[0] ?? file
}

function floor(file: string): number | undefined {
  const at = FLOORS.findIndex(rooms => rooms.includes(room(file)))
  return at < 0 ? undefined : at
}

const STATIC = /^\s*(?:import|export)\s+(type\s)?(?:[^'";]*?\sfrom\s+)?['"]([^'"]+)['"]/gm
const LAZY = /\b(typeof\s+)?import\(\s*['"]([^'"]+)['"]/g

function readImports(sources: Sources): readonly Import[] {
  return [...sources].flatMap(([from, source]) => {
    const text = withoutComments(source)
    const statics = [...text.matchAll(STATIC)].map(([, type, to = '']) => ({ to, isType: !!type, isLazy: false }))
    const lazies = [...text.matchAll(LAZY)].map(([, type, to = '']) => ({ to, isType: !!type, isLazy: true }))
    return [...statics, ...lazies].map(({ to, isType, isLazy }) => {
      const isOwn = to.startsWith('.')
      const target = isOwn ? posix.join(posix.dirname(from), to) : packageName(to)
      return { from, to: target, isOwn, isType, isLazy }
    })
  })
}

/** `undici/lib/x.js` -> `undici`, `@scope/name/x` -> `@scope/name`. */
function packageName(specifier: string): string {
  return specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/')
}

/** Comments may name what code may not use. A `//` inside a text is kept by asking for a space or a line's start before. */
function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/(^|\s)\/\/.*$/gm, '')
}
