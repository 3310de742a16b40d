// A real Prefect server for tests: its own home in a temporary directory, a free loopback port, nothing of the caller's.
//
// `await using server = await startPrefectServer('prefect2')`; the test says that it needs one with needs('prefect2').

import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, openSync } from 'node:fs'
import { copyFile, mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { prefectEnvironment } from './requires.ts'

export type PrefectVersion = 'prefect2' | 'prefect3'

export interface PrefectServer extends AsyncDisposable {
  /** `http://127.0.0.1:PORT/api` */
  readonly apiUrl: string
  /** Such as `2.20.25`; undefined when the server has a password. */
  readonly version: string | undefined
  /** Its PREFECT_HOME, with `server.log` in it. */
  readonly home: string
  readonly port: number
}

export interface PrefectServerOptions {
  /** Server settings by their environment names. */
  readonly settings?: Readonly<Record<string, string>>
  /** Default: a free one. */
  readonly port?: number
  /** An earlier server's home to go on with; it is kept, then. Default: a fresh one, removed at the end. */
  readonly home?: string
}

const SETTINGS = {
  DO_NOT_TRACK: '1',
  PREFECT_SERVER_ANALYTICS_ENABLED: 'false',
  PREFECT_LOGGING_SERVER_LEVEL: 'WARNING',
  PREFECT_SERVER_LOGGING_LEVEL: 'WARNING',
  PREFECT_LOGGING_LEVEL: 'WARNING',
  PREFECT_UI_ENABLED: 'false',
  PREFECT_SERVER_UI_ENABLED: 'false',
}

/** With the database that scripts/prefect-environments has made, in which they are. */
const HAS_BLOCK_TYPES = { PREFECT_API_BLOCKS_REGISTER_ON_START: 'false' }

/**
 * Program and arguments. `prefect server start` of Prefect 2 starts just this as a child, and all that it has loaded itself
 * is never used: half of the processor time.
 */
const SERVERS = {
  prefect2: [
    'python',
    '-m',
    'uvicorn',
    '--factory',
    'prefect.server.api.server:create_app',
    '--timeout-keep-alive',
    '5',
  ],
  prefect3: ['prefect', 'server', 'start'],
} as const satisfies Record<PrefectVersion, readonly [string, ...string[]]>

/** Milliseconds; it takes about 4 s alone, and much longer where all cores are busy. */
const START_TIMEOUT_MS = 120_000
const STOP_TIMEOUT_MS = 10_000

/** The directory of a Prefect environment with `bin/prefect` and `bin/python` in it. */
export function findPrefect(which: PrefectVersion): string {
  return prefectEnvironment(which === 'prefect2' ? 'p2' : 'p3')
}

export async function startPrefectServer(
  which: PrefectVersion,
  options: PrefectServerOptions = {},
): Promise<PrefectServer> {
  // Prefect takes seconds until it binds its port, which another program may have been given meanwhile.
  for (let tries = options.port === undefined ? 3 : 1; ; tries -= 1) {
    try {
      return await startOnce(which, options)
    } catch (error) {
      if (tries <= 1) throw error
    }
  }
}

async function startOnce(which: PrefectVersion, options: PrefectServerOptions): Promise<PrefectServer> {
  const port = options.port ?? (await findFreePort())
  const home = options.home ?? (await makeHome(which))
  const isFresh = options.home === undefined && existsSync(findFreshDatabase(which))
  const log = join(home, 'server.log')
  const output = openSync(log, 'a')
  const [program, ...args] = SERVERS[which]
  // A session of its own, so that all of it can be ended by one signal.
  const child = spawn(
    join(findPrefect(which), 'bin', program),
    [...args, '--host', '127.0.0.1', '--port', String(port)],
    {
      env: {
        ...cleanEnvironment(),
        ...SETTINGS,
        ...(isFresh ? HAS_BLOCK_TYPES : {}),
        ...options.settings,
        PREFECT_HOME: home,
      },
      stdio: ['ignore', output, output],
      detached: true,
    },
  )
  const stop = async (): Promise<void> => {
    await stopGroup(child)
    if (options.home === undefined) await rm(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
  }
  const apiUrl = `http://127.0.0.1:${port}/api`
  try {
    await waitForHealth(child, apiUrl)
    return { apiUrl, version: await readVersion(apiUrl), home, port, [Symbol.asyncDispose]: stop }
  } catch (error) {
    const tail = (await readFile(log, 'utf8').catch(() => '')).split('\n').slice(-15).join('\n')
    await stop()
    throw new Error(`Could not start a ${which} server. Its log ends with:\n${tail}`, { cause: error })
  }
}

async function makeHome(which: PrefectVersion): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'rigel-prefect-'))
  const fresh = findFreshDatabase(which)
  if (existsSync(fresh)) await copyFile(fresh, join(home, 'prefect.db'))
  return home
}

/** Made by scripts/prefect-environments; with it a start takes a third of the processor time. */
function findFreshDatabase(which: PrefectVersion): string {
  return join(findPrefect(which), 'fresh', 'prefect.db')
}

/** The caller's environment without their Prefect and their proxies. */
export function cleanEnvironment(): NodeJS.ProcessEnv {
  const foreign = /^(prefect|rigel_(?!prefect))|^(https?|all|no)_proxy$/i
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !foreign.test(name)))
}

/** A loopback port that nobody listens on just now. */
export async function findFreePort(): Promise<number> {
  const server = createServer()
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject).listen(0, '127.0.0.1', resolve)
  await promise
  const address = server.address()
  await new Promise(closed => server.close(closed))
  if (address === null || typeof address === 'string') throw new Error('no port was given')
  return address.port
}

async function waitForHealth(child: ChildProcess, apiUrl: string): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS
  while (performance.now() < deadline) {
    // Checked first: another program that took the port would answer in its place.
    if (child.exitCode !== null || child.signalCode !== null)
      throw new Error(`it ended with ${child.exitCode ?? child.signalCode}`)
    const answer = await fetch(`${apiUrl}/health`, { signal: AbortSignal.timeout(2000) }).catch(() => undefined)
    // Another program that has the port may answer as well, until Prefect ends for want of it.
    if (answer?.ok && answer.headers.get('server') === 'uvicorn') return
    await delay(200)
  }
  throw new Error(`it was not healthy within ${START_TIMEOUT_MS / 1000} s`)
}

async function readVersion(apiUrl: string): Promise<string | undefined> {
  const answer = await fetch(`${apiUrl}/admin/version`)
  const version: unknown = answer.ok ? await answer.json() : undefined
  return typeof version === 'string' ? version : undefined
}

async function stopGroup(child: ChildProcess): Promise<void> {
  const { pid } = child
  if (pid === undefined) return
  const ended = new Promise(resolve =>
    child.exitCode === null && child.signalCode === null ? child.once('exit', resolve) : resolve(0),
  )
  signalGroup(pid, 'SIGTERM')
  await Promise.race([ended, delay(STOP_TIMEOUT_MS, undefined, { ref: false })])
  signalGroup(pid, 'SIGKILL')
  await ended
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal)
  } catch {
    // Nothing of the group is left.
  }
}
