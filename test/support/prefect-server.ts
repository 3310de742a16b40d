// A real Prefect server for tests: its own home in a temporary directory, a free loopback port, nothing of the caller's.
//
// `await using server = await startPrefectServer('prefect2')`; the test says that it needs one with needs('prefect2').

import { randomInt } from 'node:crypto'
import { existsSync } from 'node:fs'
import { copyFile, mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { listen } from './listen.ts'
import { type ForkedServer, forkServer, startNursery } from './prefect-nursery.ts'
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

/** With the database that scripts/prefect-environments has made: its tables and block types are there. */
const HAS_DATABASE = {
  PREFECT_API_BLOCKS_REGISTER_ON_START: 'false',
  PREFECT_API_DATABASE_MIGRATE_ON_START: 'false',
}

/** Names of environment variables: the socket of the nursery that `npm test` has started (setup.ts). */
export const nurseryVariables = {
  prefect2: 'RIGEL_TEST_NURSERY_PREFECT2',
  prefect3: 'RIGEL_TEST_NURSERY_PREFECT3',
} as const satisfies Record<PrefectVersion, string>

/** Milliseconds; it takes about 4 s alone, and more than a minute where all cores are busy. */
const START_TIMEOUT_MS = 300_000

/** The directory of a Prefect environment with `bin/prefect` and `bin/python` in it. */
export function findPrefect(which: PrefectVersion): string {
  return prefectEnvironment(which === 'prefect2' ? 'p2' : 'p3')
}

export function findPython(which: PrefectVersion): string {
  return join(findPrefect(which), 'bin', 'python')
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
  const stack = new AsyncDisposableStack()
  if (options.home === undefined)
    stack.defer(() => rm(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }))
  const apiUrl = `http://127.0.0.1:${port}/api`
  try {
    const socket = await findNursery(which, options.settings, stack)
    await waitForHealth(stack.use(forkServer(socket, { home, port })), apiUrl)
    return { apiUrl, version: await readVersion(apiUrl), home, port, [Symbol.asyncDispose]: () => stack.disposeAsync() }
  } catch (error) {
    const tail = (await readFile(join(home, 'server.log'), 'utf8').catch(() => '')).split('\n').slice(-15).join('\n')
    await stack.disposeAsync()
    throw new Error(`Could not start a ${which} server. Its log ends with:\n${tail}`, { cause: error })
  }
}

/** That of all test files, or a new one where there is none or settings are asked for, which Prefect reads when imported. */
async function findNursery(
  which: PrefectVersion,
  settings: PrefectServerOptions['settings'],
  owner: AsyncDisposableStack,
): Promise<string> {
  const shared = process.env[nurseryVariables[which]]
  if (shared !== undefined && settings === undefined) return shared
  return owner.use(await startNursery(findPython(which), { ...buildServerEnvironment(which), ...settings })).socket
}

export function buildServerEnvironment(which: PrefectVersion): NodeJS.ProcessEnv {
  return { ...cleanEnvironment(), ...SETTINGS, ...(existsSync(findFreshDatabase(which)) ? HAS_DATABASE : {}) }
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

/**
 * A loopback port that nobody listens on just now, and one that Linux gives to nobody who asks for any: those are from
 * 32768 on. So it is still free seconds later, when a server has come to bind it, or another has ended that had it.
 */
export async function findFreePort(): Promise<number> {
  const server = createServer()
  for (;;) {
    const port = randomInt(20_000, 30_000)
    const isFree = await listen(server, { host: '127.0.0.1', port }).catch(() => undefined)
    if (!isFree) continue
    await new Promise(closed => server.close(closed))
    return port
  }
}

async function waitForHealth(server: ForkedServer, apiUrl: string): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS
  while (performance.now() < deadline) {
    // Checked first: another program that took the port would answer in its place.
    if (server.hasEnded) throw new Error('it has ended')
    const answer = await fetch(`${apiUrl}/health`, { signal: AbortSignal.timeout(10_000) }).catch(() => undefined)
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
