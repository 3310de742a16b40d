// What the supervision of processes costs: bare spawns against supervised runs, and what stays in memory meanwhile.
//
//   node bench/spawn.ts [runs per row, default 300] [at once, default 16]
//
// A figure, not a test: the machine, and whatever else it does, decides.

import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, release as kernel, tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import Table from 'cli-table3'
import type { Handle, RunSpec } from '../src/infrastructure/infrastructure.ts'
import { createProcessInfrastructure } from '../src/infrastructure/process.ts'
import { listProcesses, readCommand } from '../src/infrastructure/process-table.ts'
import { createLogger } from '../src/logger.ts'

const runs = Number(process.argv[2] ?? 300)
const atOnce = Number(process.argv[3] ?? 16)
const LIVING = 200
const { signal } = new AbortController()
const ignore = (): void => {}

const directory = mkdtempSync(join(process.env.RIGEL_BENCH_DIR ?? tmpdir(), 'rigel-bench-'))
const runsDirectory = join(directory, 'runs')
mkdirSync(runsDirectory)
const infrastructure = createProcessInfrastructure({
  runsDirectory,
  logger: createLogger({ level: 'CRITICAL', pretty: false, destination: { write: ignore } }),
  outputCapBytes: 10 * 1024 * 1024,
  environment: process.env,
  inheritEnv: 'all',
})

function makeSpec(command: readonly string[]): RunSpec {
  const transitionId = randomUUID()
  const attempt = transitionId.slice(-8)
  const flowRunId = randomUUID()
  const none = { settings: {}, env: {}, unsetEnv: [], labels: {}, workspace: undefined, files: {} }
  mkdirSync(join(runsDirectory, flowRunId), { mode: 0o700 })
  return { flowRunId, attempt, transitionId, name: 'bench', command, ...none }
}

/** A bare child, as cheap as Node can. */
async function spawnBare(): Promise<void> {
  await once(spawn('true', { stdio: 'ignore' }), 'exit')
}

const submitLatencies: number[] = []

async function runSupervised(journal: (flowRunId: string, step: string) => void): Promise<void> {
  const spec = makeSpec(['true'])
  for (const step of ['claiming', 'claimed', 'submitting']) journal(spec.flowRunId, step)
  const started = performance.now()
  const handle = await infrastructure.submit(spec, signal)
  submitLatencies.push(performance.now() - started)
  journal(spec.flowRunId, 'running')
  await infrastructure.wait(handle, ignore, signal)
  for (const step of ['exited', 'reported']) journal(spec.flowRunId, step)
  await infrastructure.release(handle, signal)
  rmSync(join(runsDirectory, spec.flowRunId), { recursive: true })
}

/** The journal's way to keep a record, without its fsync: that is the disk's, not ours. */
function keepRecord(flowRunId: string, step: string): void {
  const path = join(runsDirectory, flowRunId, 'record.json')
  writeFileSync(`${path}.new`, JSON.stringify({ flowRunId, step, at: Date.now() }))
  renameSync(`${path}.new`, path)
}

/** Runs per second with `atOnce` under way, and processor time of this process and its children per run. */
async function measure(work: () => Promise<void>): Promise<readonly string[]> {
  let left = runs
  const before = processorMs()
  const started = performance.now()
  const lane = async (): Promise<void> => {
    while (left-- > 0) await work()
  }
  await Promise.all(Array.from({ length: atOnce }, lane))
  const seconds = (performance.now() - started) / 1000
  return [(runs / seconds).toFixed(0), ((processorMs() - before) / runs).toFixed(1)]
}

/** utime, stime, cutime, cstime of /proc/self/stat, in ms at the usual 100 ticks a second. */
function processorMs(): number {
  const text = readFileSync('/proc/self/stat', 'latin1')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks) * 10, 0)
}

function pssKiB(pid: number): number {
  return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1'))?.[1] ?? 0)
}

function percentile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.floor(share * (values.length - 1))] ?? 0
}

function ownKiB(): { readonly rss: number; readonly heap: number } {
  global.gc?.()
  const { rss, heapUsed, external } = process.memoryUsage()
  return { rss: rss / 1024, heap: (heapUsed + external) / 1024 }
}

/** PSS of the processes that run one of our scripts over this bench's folder. */
function findScripts(script: string): readonly number[] {
  return listProcesses()
    .map(({ pid }) => ({ pid, words: readCommand(pid) }))
    .filter(
      ({ words }) => words.some(word => word.endsWith(script)) && words.some(word => word.includes(runsDirectory)),
    )
    .map(({ pid }) => pssKiB(pid))
}

/** Supervisors' and this process's memory while many runs live. */
async function measureMemory(): Promise<readonly (readonly string[])[]> {
  await runSupervised(ignore) // What the first run loads is not the runs'.
  const before = ownKiB()
  const handles: Handle[] = []
  for (let at = 0; at < LIVING; at += 1) handles.push(await infrastructure.submit(makeSpec(['sleep', '600']), signal))
  const stop = new AbortController()
  const waits = handles.map(handle => infrastructure.wait(handle, ignore, stop.signal).catch(ignore))
  await new Promise(resolve => setTimeout(resolve, 3000))
  const after = ownKiB()
  const processor = processorMs()
  await new Promise(resolve => setTimeout(resolve, 5000))
  const share = (processorMs() - processor) / 5000
  const supervisors = findScripts('supervisor.sh')
  const caretakers = findScripts('caretaker.sh')
  stop.abort()
  await Promise.all(waits)
  await Promise.all(handles.map(handle => infrastructure.kill(handle, 0, signal)))
  const perRun = (what: 'rss' | 'heap'): string => `${((after[what] - before[what]) / LIVING).toFixed(1)} KiB`
  return [
    [`agent's heap per running process, of ${supervisors.length}`, perRun('heap')],
    ["agent's RSS per running process", perRun('rss')],
    ["agent's processor share while they run", `${(share * 100).toFixed(2)} % of a core`],
    ['supervisor, PSS, median', `${percentile(supervisors, 0.5)} KiB`],
    ['caretaker, PSS, one for all', `${caretakers[0] ?? 0} KiB`],
  ]
}

try {
  console.log(`${cpus().length} × ${cpus()[0]?.model ?? 'cpu'}, Linux ${kernel()}, Node ${process.version}`)
  console.log(`${runs} runs of \`true\` per row, ${atOnce} at once, in ${directory}`)
  const rates = new Table({ head: ['', 'runs/s', 'CPU ms/run'], style: { head: [] } })
  await measure(spawnBare)
  rates.push(['bare spawn', ...(await measure(spawnBare))])
  rates.push(['supervised', ...(await measure(() => runSupervised(ignore)))])
  rates.push(["supervised, with the journal's renames", ...(await measure(() => runSupervised(keepRecord)))])
  console.log(rates.toString())
  submitLatencies.length = 0
  for (let at = 0; at < 100; at += 1) await runSupervised(ignore)
  const [p50, p95] = [0.5, 0.95].map(share => percentile(submitLatencies, share).toFixed(1))
  const rest = new Table({ head: ['', ''], style: { head: [] } })
  rest.push(['submit, one at a time', `${p50} ms p50, ${p95} ms p95`], ...(await measureMemory()).map(row => [...row]))
  console.log(rest.toString())
} finally {
  rmSync(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 })
}
