// What the Kubernetes driver costs, on the real cluster of test/support/engines.
//
//   RIGEL_TEST_KUBECONFIG=... scripts/node --expose-gc bench/kubernetes.ts [launch|events|memory]...
//
// About a minute on a quiet machine. Memory is that of the command as users run it, with the flags that bin/rigel.js sets.
// Bounded: some dozen pods of busybox, and BENCH_JOBS (1,000) Jobs that no node takes; all are removed. Each part says what
// the driver did by its calls, which are seen where Node's own client announces them.

import { randomBytes, randomUUID } from 'node:crypto'
import { subscribe } from 'node:diagnostics_channel'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import v8 from 'node:v8'
import * as v from 'valibot'
import type { RunSpec } from '../src/infrastructure/infrastructure.ts'
import { createKubernetesInfrastructure, type KubernetesInfrastructure } from '../src/infrastructure/kubernetes.ts'
import { createLogger } from '../src/logger.ts'
import { kubeconfig, makeNamespace, openClient } from '../test/infrastructure/kubernetes-subject.ts'

const never = new AbortController().signal
const jobs = Number(process.env.BENCH_JOBS ?? 1_000)
const rounds = Number(process.env.BENCH_ROUNDS ?? 15)
const agent = randomBytes(4).toString('hex')
const logger = createLogger({ level: 'ERROR', pretty: false, destination: process.stderr })
const runsDirectory = await mkdtemp(join(tmpdir(), 'rigel-bench-'))
const client = openClient()
const namespace = await makeNamespace(client)

interface Call {
  readonly what: string
  readonly atMs: number
}
/** What Node documents for this channel, as far as it is used. */
const Started = v.object({ request: v.object({ method: v.string(), path: v.string() }) })
const calls: Call[] = []
subscribe('http.client.request.start', message => {
  const { request } = v.parse(Started, message)
  calls.push({ what: `${request.method} ${request.path}`, atMs: performance.now() })
})

const command = await readFile(join(import.meta.dirname, '..', 'bin', 'rigel.js'), 'utf8')
for (const [, flag = ''] of command.matchAll(/^ +'(--[\w=-]+)',$/gm)) v8.setFlagsFromString(flag)

const asked = process.argv.slice(2)
const isAsked = (part: string) => asked.length === 0 || asked.includes(part)
console.log(`${cpus().length} x ${cpus()[0]?.model.trim()}, node ${process.version}`)
try {
  if (isAsked('launch')) await measureLaunch()
  if (isAsked('events')) await measureEvents()
  if (isAsked('memory')) await measureMemory()
} finally {
  await client.call('DELETE', `/api/v1/namespaces/${namespace}`, {}, never)
  await client[Symbol.asyncDispose]()
  await rm(runsDirectory, { recursive: true, force: true })
}

function makeDriver(): KubernetesInfrastructure {
  const environment = { HOME: runsDirectory, KUBECONFIG: kubeconfig }
  return createKubernetesInfrastructure({ runsDirectory, logger, environment })
}

async function makeSpec(script: string, settings: Record<string, unknown> = {}): Promise<RunSpec> {
  const transitionId = agent + randomUUID().slice(8)
  const flowRunId = randomUUID()
  await mkdir(join(runsDirectory, flowRunId), { mode: 0o700 })
  return {
    flowRunId,
    transitionId,
    attempt: transitionId.slice(-8),
    name: 'bench',
    settings: { image: 'rigel.test/busybox:1', namespace, ...settings },
    command: ['sh', '-c', script],
    env: { KEY: 'value' },
    unsetEnv: [],
    labels: {},
    workspace: join(import.meta.dirname, '..', 'config'),
    files: {},
  }
}

/** From the call of `submit`, with the code there and the client loaded, to the first POST; and the writes of one run. */
async function measureLaunch(): Promise<void> {
  const driver = makeDriver()
  const first: number[] = []
  const whole: number[] = []
  const writes: number[] = []
  for (let round = 0; round <= rounds; round++) {
    const spec = await makeSpec('true')
    calls.length = 0
    const startMs = performance.now()
    const handle = await driver.submit(spec, never)
    const endMs = performance.now()
    const post = calls.find(({ what }) => what.startsWith('POST'))
    await driver.wait(handle, () => {}, never)
    await driver.release(handle, never)
    // The first round loads the client and asks for the cluster's id.
    if (round === 0 || !post) continue
    first.push(post.atMs - startMs)
    whole.push(endMs - startMs)
    writes.push(calls.filter(({ what }) => /^(POST|PATCH|PUT|DELETE)/.test(what)).length)
  }
  console.log(`submit to the first POST: median ${ms(median(first))}, worst ${ms(Math.max(...first))}`)
  console.log(`submit to the Job let go: median ${ms(median(whole))}`)
  console.log(`API writes of one run with code and secrets: ${Math.max(...writes)}`)
  await driver[Symbol.asyncDispose]()
}

/** From the arrival of a pod's last event, seen by a second watch in this process, to the end of `wait`. */
async function measureEvents(): Promise<void> {
  const driver = makeDriver()
  const stop = new AbortController()
  const arrived = new Map<string, number>()
  const query = { watch: true, labelSelector: `rigel.io/agent=${agent}` }
  const stream = await client.stream(`/api/v1/namespaces/${namespace}/pods`, query, stop.signal)
  stream.on('error', () => {})
  let rest = ''
  stream.on('data', (chunk: Buffer) => {
    const lines = (rest + chunk.toString()).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      const name = /"job-name":"([^"]+)"/.exec(line)?.[1]
      if (name && line.includes('"phase":"Succeeded"') && !arrived.has(name)) arrived.set(name, performance.now())
    }
  })
  const delays: number[] = []
  for (let round = 0; round < rounds; round++) {
    const handle = await driver.submit(await makeSpec('sleep 0.2'), never)
    await driver.wait(handle, () => {}, never)
    const endMs = performance.now()
    const at = arrived.get(handle.identifier.split(':')[2] ?? '')
    if (at !== undefined) delays.push(endMs - at)
  }
  stop.abort()
  const told = `median ${ms(median(delays))}, worst ${ms(Math.max(...delays))} (${delays.length} runs)`
  console.log(`a pod's last event to the end of wait, its output read: ${told}`)
  await driver[Symbol.asyncDispose]()
}

/** Resident memory and calls with many Jobs in hand, nearly all of them Pending. */
async function measureMemory(): Promise<void> {
  const driver = makeDriver()
  const warm = await driver.submit(await makeSpec('true'), never)
  await driver.wait(warm, () => {}, never)
  const before = await settledMemory()
  calls.length = 0
  const stop = new AbortController()
  const waits: Promise<unknown>[] = []
  const nowhere = [{ op: 'add', path: '/spec/template/spec/nodeSelector', value: { nowhere: 'yes' } }]
  let left = jobs
  const work = async () => {
    while (left-- > 0) {
      const spec = { ...(await makeSpec('true', { customizations: nowhere })), workspace: undefined }
      const handle = await driver.submit(spec, never)
      waits.push(driver.wait(handle, () => {}, stop.signal).catch(() => undefined))
    }
  }
  const startMs = performance.now()
  await Promise.all(Array.from({ length: 20 }, work))
  const seconds = (performance.now() - startMs) / 1000
  await delay(20_000)
  const after = await settledMemory()
  const watches = calls.filter(({ what }) => what.includes('watch=true')).length
  const reads = calls.filter(({ what }) => what.startsWith('GET') && !what.includes('watch=true')).length
  const more = ((after - before) / 1_048_576).toFixed(1)
  console.log(`${jobs} Jobs submitted in ${seconds.toFixed(1)} s, ${(jobs / seconds).toFixed(0)} a second`)
  console.log(`memory from 0 to ${jobs} Jobs: ${more} MiB more resident`)
  console.log(`watches opened meanwhile: ${watches}; other reads: ${reads}`)
  stop.abort()
  await Promise.all(waits)
  await driver[Symbol.asyncDispose]()
}

async function settledMemory(): Promise<number> {
  for (let turn = 0; turn < 4; turn++) {
    globalThis.gc?.()
    await delay(500)
  }
  return process.memoryUsage().rss
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

function ms(value: number): string {
  return `${value.toFixed(1)} ms`
}
