// Fetches one storage block with our own code, in a process of its own; loading the code is timed apart.
//
//   node storage-fetch.ts '{"block": …, "environment": …, "to": …, "cacheDir": …, "times": 1, "atOnce": 1}'

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'

const started = performance.now()
const { makeMeter } = await import('../src/storage/context.ts')
const { openRemote, openStorage } = await import('../src/storage/registry.ts')
const { knownFiles, takeSnapshot } = await import('../src/storage/snapshot.ts')

export interface FetchOrder {
  readonly block: { readonly slug: string; readonly data: Readonly<Record<string, unknown>> }
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Folder in which each fetch gets one of its own. */
  readonly to: string
  readonly cacheDir: string
  /** One after the other. */
  readonly times: number
  /** Each time so many together. */
  readonly atOnce: number
}

export interface FetchReport {
  readonly loadMs: number
  /** Of each time, until the last has its workspace. */
  readonly fetches: readonly Fetch[]
  /** Asking the source once more whether it has changed. */
  readonly listMs: number
  /** Peak of resident memory above what there was before the first fetch. */
  readonly moreMiB: number
}

export interface Fetch {
  readonly ms: number
  readonly processorMs: number
  readonly files: number
  readonly requests: number
}

// Written by storage.ts.
const order: FetchOrder = JSON.parse(process.argv[2] ?? '')
const signal = new AbortController().signal
const limits = { maxBytes: 2 ** 31, maxFiles: 100_000, maxSeconds: 3600 }
const context = {
  environment: order.environment,
  proxies: {},
  home: '/nonexistent',
  limits,
  cacheDir: order.cacheDir,
  logger: undefined,
}
await openStorage(order.block, context)
const loadMs = performance.now() - started

// From here on the peak counts anew.
writeFileSync('/proc/self/clear_refs', '5')
const before = readMiB('VmRSS')
const fetches: Fetch[] = []
for (let time = 0; time < order.times; time++) {
  const meter = makeMeter()
  const begun = performance.now()
  const processor = processorMs()
  await Promise.all(Array.from({ length: order.atOnce }, (_, at) => fetchInto(`${time}-${at}`, meter)))
  fetches.push({
    ms: performance.now() - begun,
    processorMs: processorMs() - processor,
    files: meter.files,
    requests: meter.requests,
  })
}
const moreMiB = readMiB('VmHWM') - before

const report: FetchReport = { loadMs, fetches, listMs: await list(), moreMiB }
console.log(JSON.stringify(report))

async function fetchInto(name: string, meter: ReturnType<typeof makeMeter>): Promise<void> {
  const to = join(order.to, name)
  mkdirSync(to, { recursive: true })
  const storage = await openStorage(order.block, { ...context, meter })
  await storage.getDirectory(undefined, to, signal)
}

async function list(): Promise<number> {
  if (order.block.slug === 'local-file-system') return Number.NaN
  // As the cache asks: it knows what was said the last time.
  const { entries } = await ask()
  return (await ask(() => Promise.resolve(knownFiles(entries)))).ms
}

/** By a new connection each time. */
async function ask(known?: Parameters<typeof takeSnapshot>[3]) {
  const source = (await openRemote(order.block, context)).folder(undefined)
  const begun = performance.now()
  const { entries } = await takeSnapshot(source, limits, signal, known)
  const ms = performance.now() - begun
  await source.close()
  return { entries, ms }
}

function processorMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

function readMiB(name: string): number {
  const text = readFileSync('/proc/self/status', 'utf8')
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0) / 1024
}
