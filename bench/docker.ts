// What the Docker driver costs, beside the same engine driven by a raw loop and by Prefect 2.20.25's own block.
//
//   RIGEL_TEST_DOCKER_HOST=unix:///... node bench/docker.ts [launches|throughput|prefect|memory]...
//
// Bounded: some hundred containers of busybox, all removed. Needs the engine and images of test/support/engines. The
// rows of Prefect need its virtual environment (RIGEL_PREFECT). Medians of rounds that alternate, for engines have moods.

import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { channel } from 'node:diagnostics_channel'
import { readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { cpus, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { createDockerInfrastructure, type DockerInfrastructure } from '../src/infrastructure/docker.ts'
import type { RunSpec } from '../src/infrastructure/infrastructure.ts'
import { createLogger } from '../src/logger.ts'
import { prefectEnvironment } from '../test/support/requires.ts'

const host = process.env.RIGEL_TEST_DOCKER_HOST ?? ''
const image = 'rigel.test/busybox:1'
const inFlight = Number(process.env.BENCH_IN_FLIGHT ?? 20)
const perRound = Number(process.env.BENCH_CONTAINERS ?? 60)
const rounds = Number(process.env.BENCH_ROUNDS ?? 5)
const watchedContainers = 200
const never = new AbortController().signal
const logger = createLogger({ level: 'ERROR', pretty: false, destination: process.stderr })
const runsDirectory = await mkdtemp(join(tmpdir(), 'rigel-bench-'))
const agentPrefix = randomUUID().slice(0, 8)

const agent = new Agent({ keepAlive: true })

const asked = process.argv.slice(2)
const isAsked = (part: string) => asked.length === 0 || asked.includes(part)

if (host === '') throw new Error('RIGEL_TEST_DOCKER_HOST must name an engine for tests')
console.log(`${cpus().length} x ${cpus()[0]?.model.trim()}, node ${process.version}, engine at ${host}`)
try {
  if (isAsked('launches')) await measureLaunches()
  if (isAsked('throughput')) await measureThroughput()
  if (isAsked('memory')) await measureMemory()
} finally {
  await rm(runsDirectory, { recursive: true, force: true })
}

function makeDriver(): DockerInfrastructure {
  return createDockerInfrastructure({ runsDirectory, logger, environment: { HOME: runsDirectory, DOCKER_HOST: host } })
}

async function makeSpec(command: readonly string[], settings: Record<string, unknown> = {}): Promise<RunSpec> {
  const transitionId = agentPrefix + randomUUID().slice(8)
  const flowRunId = randomUUID()
  await mkdir(join(runsDirectory, flowRunId), { mode: 0o700 })
  return {
    flowRunId,
    transitionId,
    attempt: transitionId.slice(-8),
    name: 'bench',
    settings: { image, auto_remove: true, ...settings },
    command,
    env: {},
    unsetEnv: [],
    labels: {},
    workspace: undefined,
    files: {},
  }
}

/** From submit to its answer, without the time in which the engine had a call of ours to answer. */
async function measureLaunches(): Promise<void> {
  await using driver = makeDriver()
  const shares: number[] = []
  const processor: number[] = []
  for (let round = 0; round < 60; round++) {
    const spec = await makeSpec(['true'])
    const engine = watchEngineTime()
    const before = process.cpuUsage()
    const began = performance.now()
    const handle = await driver.submit(spec, never)
    const took = performance.now() - began
    const used = process.cpuUsage(before)
    engine.stop()
    await driver.wait(handle, () => {}, never)
    await driver.release(handle, never)
    // The first ones compile.
    if (round < 10) continue
    shares.push(took - engine.ms())
    processor.push((used.user + used.system) / 1000)
  }
  row(
    'our own share of a launch (wall time outside engine calls)',
    `${ms(median(shares))} p50, ${ms(quantile(shares, 0.95))} p95`,
  )
  row('processor time of a launch', `${ms(median(processor))} p50, ${ms(quantile(processor, 0.95))} p95`)
}

/** Sums the time between the beginning of a request and the end of its answer. Calls of a launch follow one another. */
function watchEngineTime() {
  let total = 0
  const began = new Map<unknown, number>()
  const onStart = (message: unknown) => began.set(requestOf(message), performance.now())
  const onFinish = (message: unknown) => {
    total += performance.now() - (began.get(requestOf(message)) ?? performance.now())
  }
  channel('http.client.request.start').subscribe(onStart)
  channel('http.client.response.finish').subscribe(onFinish)
  return {
    ms: () => total,
    stop: () => {
      channel('http.client.request.start').unsubscribe(onStart)
      channel('http.client.response.finish').unsubscribe(onFinish)
    },
  }
}

/** What Node's own diagnostics channel says of a request: the same object at its start and its end. */
function requestOf(message: unknown): unknown {
  return message !== null && typeof message === 'object' && 'request' in message ? message.request : undefined
}

interface Cost {
  readonly rate: number
  readonly ownMs: number
  readonly engineMs: number
}

async function measureThroughput(): Promise<void> {
  const raw: Cost[] = []
  const rigel: Cost[] = []
  const prefect: number[] = []
  await using driver = makeDriver()
  await runRaw(inFlight)
  await runRigel(driver, inFlight)
  const hasPrefect = isAsked('prefect')
  for (let round = 0; round < rounds; round++) {
    // Whoever is second finds the page cache and the neighbours' load as the first has left them, so they take turns.
    if (round % 2 === 0) raw.push(await measure(() => runRaw(perRound)))
    rigel.push(await measure(() => runRigel(driver, perRound)))
    if (round % 2 === 1) raw.push(await measure(() => runRaw(perRound)))
    if (hasPrefect) prefect.push(await runPrefect())
    console.log(
      `  round ${round + 1}: raw ${describe(raw.at(-1))}; rigel ${describe(rigel.at(-1))}; prefect ${prefect.at(-1)?.toFixed(1)}`,
    )
  }
  const rates = (costs: readonly Cost[]) => costs.map(cost => cost.rate)
  const whole = (costs: readonly Cost[]) => median(costs.map(({ ownMs, engineMs }) => ownMs + engineMs))
  const rawRate = median(rates(raw))
  row(`raw create-start-wait-remove, ${inFlight} in flight`, `${rawRate.toFixed(1)} containers a second`)
  row('rigel: submit, wait with output, release', share(median(rates(rigel)), rawRate))
  row(
    'rigel against raw, round by round',
    `${(100 * median(rates(rigel).map((one, at) => one / (raw[at]?.rate ?? one)))).toFixed(0)} %`,
  )
  row('processor time of a container, engine and client: raw', ms(whole(raw)))
  row('the same: rigel', `${ms(whole(rigel))}, of it ${ms(median(rigel.map(cost => cost.ownMs)))} our own`)
  if (hasPrefect) row("Prefect 2.20.25's docker-container block", share(median(prefect), rawRate))
}

function describe(cost: Cost | undefined): string {
  return cost ? `${cost.rate.toFixed(1)}/s ${cost.ownMs.toFixed(1)}+${cost.engineMs.toFixed(1)} ms` : ''
}

/** Containers a second, and what each cost in processor time: here, and in the engine's own processes. */
async function measure(work: () => Promise<void>): Promise<Cost> {
  const began = performance.now()
  const [own, engine] = [process.cpuUsage(), engineCpuMs()]
  await work()
  const used = process.cpuUsage(own)
  return {
    rate: perRound / ((performance.now() - began) / 1000),
    ownMs: (used.user + used.system) / 1000 / perRound,
    engineMs: (engineCpuMs() - engine) / perRound,
  }
}

/** Of dockerd, its containerd and the children that have ended, since they began; as laid out by docker.sh. */
function engineCpuMs(): number {
  const folder = dirname(host.replace('unix://', ''))
  const pids = ['dockerd.pid', 'exec/containerd/containerd.pid'].map(name => readFileSync(join(folder, name), 'utf8'))
  const ticks = pids.flatMap(pid => {
    const stat = readFileSync(`/proc/${pid.trim()}/stat`, 'utf8')
    // Behind the name come state and so on: utime, stime, cutime, cstime are the 12th to 15th of these.
    return stat
      .slice(stat.lastIndexOf(')') + 2)
      .split(' ')
      .slice(11, 15)
      .map(Number)
  })
  return ticks.reduce((sum, each) => sum + each, 0) * 10
}

async function runRigel(driver: DockerInfrastructure, count: number): Promise<void> {
  await inParallel(count, async () => {
    const handle = await driver.submit(await makeSpec(['true']), never)
    const exit = await driver.wait(handle, () => {}, never)
    if (exit.kind !== 'exited' || exit.statusCode !== 0) throw new Error(JSON.stringify(exit))
    await driver.release(handle, never)
  })
}

async function runRaw(count: number): Promise<void> {
  await inParallel(count, async () => {
    const created = await call('POST', '/containers/create', { Image: image, Cmd: ['true'] })
    const id = /"Id":"([0-9a-f]+)"/.exec(created)?.[1]
    await call('POST', `/containers/${id}/start`)
    await call('POST', `/containers/${id}/wait`)
    await call('DELETE', `/containers/${id}`)
  })
}

async function inParallel(count: number, work: () => Promise<void>): Promise<void> {
  let left = count
  const lane = async () => {
    while (left > 0) {
      left -= 1
      await work()
    }
  }
  await Promise.all(Array.from({ length: Math.min(inFlight, count) }, lane))
}

function call(method: string, path: string, body?: object): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const headers = { 'Content-Type': 'application/json' }
  const sent = request({ socketPath: host.replace('unix://', ''), method, path, agent, headers }, answer => {
    let text = ''
    answer.on('data', chunk => (text += String(chunk)))
    answer.on('end', () => ((answer.statusCode ?? 500) < 400 ? resolve(text) : reject(new Error(text))))
  })
  sent.on('error', reject)
  sent.end(body ? JSON.stringify(body) : undefined)
  return promise
}

/** As many threads as are in flight, each with Prefect's own synchronous run(). Importing is not counted. */
async function runPrefect(): Promise<number> {
  const program = `
import logging, time, asyncio
# Prefect loads it at first use, which two threads at once do not survive.
import docker
from prefect.infrastructure.container import DockerContainer
logging.disable(logging.CRITICAL)
count, lanes = ${perRound}, ${inFlight}
async def lane(queue):
    while queue:
        queue.pop()
        block = DockerContainer(image="${image}", command=["true"], auto_remove=True, image_pull_policy="IF_NOT_PRESENT")
        await block.run()
async def main():
    queue = list(range(lanes))
    await asyncio.gather(*[lane(queue) for _ in range(lanes)])
    began = time.monotonic()
    queue = list(range(count))
    await asyncio.gather(*[lane(queue) for _ in range(lanes)])
    print("RATE", count / (time.monotonic() - began))
asyncio.run(main())
`
  const home = await mkdtemp(join(tmpdir(), 'rigel-bench-prefect-'))
  try {
    const python = join(prefectEnvironment('p2'), 'bin', 'python')
    const env = { PATH: process.env.PATH, HOME: home, PREFECT_HOME: home, DOCKER_HOST: host, DO_NOT_TRACK: '1' }
    const { stdout } = await promisify(execFile)(python, ['-c', program], { env, maxBuffer: 16_777_216 })
    return Number(/^RATE ([\d.]+)$/m.exec(stdout)?.[1])
  } finally {
    await rm(home, { recursive: true, force: true })
  }
}

/** Memory of this process before and while it watches many containers that write a line now and then. */
async function measureMemory(): Promise<void> {
  await using driver = makeDriver()
  const settings = { network_mode: 'none' }
  const start = async () =>
    driver.submit(await makeSpec(['sh', '-c', 'while :; do echo line; sleep 5; done'], settings), never)
  const stop = new AbortController()
  const watch = (handle: Awaited<ReturnType<typeof start>>) =>
    driver.wait(handle, () => {}, stop.signal).catch(() => undefined)
  const warm = await Promise.all(Array.from({ length: 10 }, start))
  const watching = warm.map(watch)
  await delay(8_000)
  const before = memory()
  const handles: typeof warm = []
  while (handles.length < watchedContainers) handles.push(...(await Promise.all(Array.from({ length: 10 }, start))))
  watching.push(...handles.map(watch))
  await delay(15_000)
  const after = memory()
  row('memory per watched container, heap and buffers', kib((after.used - before.used) / watchedContainers))
  row('memory per watched container, resident', kib((after.resident - before.resident) / watchedContainers))
  stop.abort(new Error('measured'))
  await Promise.all(watching)
  for (const group of chunks([...warm, ...handles], 10)) {
    await Promise.all(
      group.map(async handle => {
        await driver.kill(handle, 0, never)
        await driver.release(handle, never)
      }),
    )
  }
  // Those that were stopped before their labels were seen.
  await driver.collect(
    { agentPrefix, finished: { keep: 0, maxAgeSeconds: 0 }, images: undefined, isHeld: () => false, dryRun: false },
    never,
  )
}

function memory(): { readonly used: number; readonly resident: number } {
  globalThis.gc?.()
  globalThis.gc?.()
  const { heapUsed, external, rss } = process.memoryUsage()
  return { used: heapUsed + external, resident: rss }
}

function chunks<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, at) => items.slice(at * size, (at + 1) * size))
}

function quantile(values: readonly number[], part: number): number {
  return values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))] ?? Number.NaN
}

function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

function share(value: number, raw: number): string {
  return `${value.toFixed(1)} containers a second, ${((100 * value) / raw).toFixed(0)} % of raw`
}

function ms(value: number): string {
  return `${value.toFixed(2)} ms`
}

function kib(bytes: number): string {
  return `${(bytes / 1024).toFixed(0)} KiB`
}

function row(what: string, value: string): void {
  console.log(`${what.padEnd(62)} ${value}`)
}
