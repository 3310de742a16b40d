// The bench of storage: Prefect 2.20.25's own blocks and ours, side by side, on the same real servers.
//
//   scripts/node bench/storage.ts [s3 azure ...] [--pairs 3] [--delays 0,20] [--large] [--only-ours]
//
// Needs the servers (test/support/storages.sh start ..., RIGEL_TEST_STORAGES) and a Prefect with all its file systems
// (scripts/prefect-environments p2storage). Each fetch is a process of its own, Prefect's with its imports done; the two take
// turns, so that both meet the same load. Figures, not tests.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { describeError } from '../src/errors.ts'
import { type FetchTimes, type PrefectBlocks, startPrefectBlocks } from '../test/storage/prefect-blocks.ts'
import { makeDirectory } from '../test/support/directory.ts'
import { run } from '../test/support/run.ts'
import { startTcpProxy } from '../test/support/tcp-proxy.ts'
import { describeMachine, median, readLoad, round } from './figures.ts'
import type { FetchOrder, FetchReport } from './storage-fetch.ts'
import { type BenchKind, type BenchPlace, fill, kinds, missingServer, openLarge } from './storage-places.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    pairs: { type: 'string', default: '3' },
    delays: { type: 'string', default: '0,20' },
    large: { type: 'boolean', default: false },
    'only-ours': { type: 'boolean', default: false },
  },
})
const timeoutMs = 1_800_000
const largeBytes = 2 ** 31

type Where = Parameters<BenchPlace['block']>[0]

// As the agent runs: bin/rigel.js turns the compilers off that cost an idle agent memory, and users run compiled files.
const agentFlags = [
  ...readFileSync(join(import.meta.dirname, '../bin/rigel.js'), 'utf8').matchAll(/^ +'(--[\w=-]+)',$/gm),
].map(([, flag = '']) => flag)

// Nothing is removed before the end: an ext4 without a journal passes over every inode that was deleted in the last minutes, for
// each file that it makes, and thousands of them cost more than the fetch.
await using directory = await makeDirectory()
await using places = new AsyncDisposableStack()
const blocks = values['only-ours'] || values.large ? undefined : places.use(await startPrefectBlocks())
let folders = 0
const nextFolder = () => join(directory.path, String(folders++))
console.log(describeMachine())
const unknown = positionals.filter(name => !kinds.some(kind => kind.name === name))
if (unknown.length > 0)
  throw new Error(`no ${unknown.join(', ')}; there are ${kinds.map(({ name }) => name).join(', ')}`)
if (values.large) await measureLarge()
else await measureKinds(kinds.filter(({ name }) => positionals.length === 0 || positionals.includes(name)))

async function measureKinds(asked: readonly BenchKind[]): Promise<void> {
  const head = [
    '2,000 objects of 4 KiB',
    "Prefect's block",
    'ours, cold',
    'faster',
    'target',
    'processor time, both',
    'unchanged',
    'of it asking the source',
    'ten at once',
    'load',
  ]
  console.log(`| ${head.join(' | ')} |\n|${'---|'.repeat(head.length)}`)
  for (const kind of asked) {
    const gap = missingServer(kind)
    if (gap === undefined) await measureKind(kind)
    else console.log(`${kind.name} needs ${gap}`)
  }
}

async function measureKind(kind: BenchKind): Promise<void> {
  const place = places.use(await kind.open())
  await fill(place)
  // Compiles what it loads, for those that are measured.
  await fetchByUs(place, undefined, { times: 1, atOnce: 1 })
  for (const [at, delayMs] of values.delays.split(',').map(Number).entries()) {
    await using proxy = await startTcpProxy({ ...place.address, delayMs })
    const where = delayMs === 0 ? undefined : { host: '127.0.0.1', port: proxy.port }
    await measureRow(`${kind.name}, +${delayMs} ms`, place, { where, target: kind.targets?.[at] })
  }
}

async function measureRow(
  what: string,
  place: BenchPlace,
  { where, target }: { readonly where: Where; readonly target: number | undefined },
): Promise<void> {
  const theirs: FetchTimes[] = []
  const reports: FetchReport[] = []
  const together: FetchReport[] = []
  for (let pair = 0; pair < Number(values.pairs); pair++) {
    if (blocks) theirs.push(await measurePrefect(blocks, place, where))
    reports.push(await fetchByUs(place, where, { times: 3, atOnce: 1 }))
    together.push(await fetchByUs(place, where, { times: 1, atOnce: 10 }))
  }
  const middle = (read: (report: FetchReport) => number | undefined) =>
    median(reports.map(report => read(report) ?? Number.NaN))
  const cold = middle(({ fetches }) => fetches[0]?.ms)
  const unchanged = middle(({ fetches }) => fetches[2]?.ms)
  const list = middle(({ listMs }) => listMs)
  const ten = median(together.map(({ fetches }) => fetches[0]?.ms ?? Number.NaN))
  const prefect = median(theirs.map(({ ms }) => ms))
  const processor = median(theirs.map(({ processorMs }) => processorMs))
  const cells = [
    what,
    seconds(prefect),
    seconds(cold),
    Number.isNaN(prefect) ? '-' : `${round(prefect / cold)} ×`,
    target === undefined ? '-' : `${target} ×`,
    `${seconds(processor)} / ${seconds(middle(({ fetches }) => fetches[0]?.processorMs))}`,
    `${round(unchanged, 0)} ms, ${reports[0]?.fetches[2]?.requests} requests`,
    `${round(list, 0)} ms, ${round((list / cold) * 100)} % of cold`,
    `${seconds(ten)}, ${together[0]?.fetches[0]?.files} files`,
    readLoad(),
  ]
  console.log(`| ${cells.join(' | ')} |`)
}

/** One file of 2 GiB: how much more memory it takes than there was before. */
async function measureLarge(): Promise<void> {
  for (const [name, place] of Object.entries(await openLarge(largeBytes))) {
    const { fetches, moreMiB } = await fetchByUs(place, undefined, { times: 1, atOnce: 1 })
    console.log(
      `${name}: a file of 2 GiB in ${seconds(fetches[0]?.ms ?? Number.NaN)}, at most ${round(moreMiB)} MiB more memory`,
    )
    await place[Symbol.asyncDispose]()
  }
}

function seconds(ms: number): string {
  return Number.isNaN(ms) ? '-' : `${round(ms / 1000, 2)} s`
}

/** NaN when it cannot do it, and why on standard error. */
async function measurePrefect(blocks: PrefectBlocks, place: BenchPlace, where: Where): Promise<FetchTimes> {
  const order = { ...place.block(where), to: nextFolder(), environment: place.environment }
  try {
    return await blocks.fetch({ ...order, timeoutSeconds: timeoutMs / 1000 })
  } catch (error) {
    console.error(describeError(error))
    return { ms: Number.NaN, processorMs: Number.NaN }
  }
}

async function fetchByUs(
  place: BenchPlace,
  where: Where,
  how: Pick<FetchOrder, 'times' | 'atOnce'>,
): Promise<FetchReport> {
  const block = place.block(where)
  const [to, cacheDir] = [nextFolder(), nextFolder()]
  const order: FetchOrder = { block, environment: place.environment ?? {}, to, cacheDir, ...how }
  const program = join(import.meta.dirname, 'storage-fetch.ts')
  const { code, stdout, stderr } = await run(process.execPath, [...agentFlags, program, JSON.stringify(order)], {
    env: { ...process.env, NODE_COMPILE_CACHE: join(directory.path, 'compiled') },
    timeoutMs,
  })
  if (code !== 0) throw new Error(`our block failed: ${stderr.slice(-2000)}`)
  return JSON.parse(stdout)
}
