// The real command as a child process, and servers for it to talk to.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { createLogger } from '../../src/logger.ts'
import { PrefectClient } from '../../src/prefect/client.ts'
import { startServer } from '../../src/server/server.ts'
import { makeDirectory } from '../support/directory.ts'
import { cleanEnvironment, startPrefectServer } from '../support/prefect-server.ts'

export const cli = fileURLToPath(new URL('../../src/cli.ts', import.meta.url))
export const silent = createLogger({ level: 'CRITICAL', pretty: false, destination: { write: () => undefined } })

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Started {
  readonly ended: Promise<Ended>
  readonly pid: number
  kill(signal: NodeJS.Signals): void
  /** Goes away, as `head` does. */
  closeStdout(): void
  /** Resolves when stdout or stderr has shown this. */
  saw(expected: RegExp): Promise<string>
}

export interface CliOptions {
  /** Variables on top of the caller's own, without their Prefect and ours. */
  readonly env?: Readonly<Record<string, string>>
  readonly input?: string
  readonly cwd?: string
}

/** Starts `rigel` with these arguments; the home directory is one that does not exist. */
export function startCli(args: readonly string[], { env = {}, input = '', cwd }: CliOptions = {}): Started {
  const child = spawn(process.execPath, [cli, ...args], {
    env: { ...cleanEnvironment(), ...testMarks(), HOME: '/nonexistent', ...env },
    ...(cwd === undefined ? {} : { cwd }),
  })
  let seen = ''
  const listeners = new Set<() => void>()
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data: Buffer) => {
      seen += data.toString()
      for (const listener of listeners) listener()
    })
  }
  child.stdin.end(input)
  const outputs = Promise.all([text(child.stdout).catch(() => ''), text(child.stderr)])
  const ended = (async (): Promise<Ended> => {
    const [code] = await once(child, 'close')
    const [stdout, stderr] = await outputs
    return { code: typeof code === 'number' ? code : null, stdout, stderr }
  })()
  return {
    ended,
    pid: child.pid ?? 0,
    kill: signal => void child.kill(signal),
    closeStdout: () => void child.stdout.destroy(),
    saw: async expected => {
      const { promise, resolve, reject } = Promise.withResolvers<string>()
      const look = (): void => {
        if (expected.test(seen)) resolve(seen)
      }
      listeners.add(look)
      look()
      void ended.then(() => reject(new Error(`ended without showing ${expected}: ${seen}`)))
      return await promise.finally(() => listeners.delete(look))
    },
  }
}

/** Runs `rigel` to its end. */
export async function runCli(args: readonly string[], options: CliOptions = {}): Promise<Ended> {
  return await startCli(args, options).ended
}

/** So that a child that is left behind is found. */
function testMarks(): Record<string, string> {
  const mark = process.env.RIGEL_TEST_FILE
  return mark === undefined ? {} : { RIGEL_TEST_FILE: mark }
}

export interface TestServer extends AsyncDisposable {
  readonly apiUrl: string
  readonly client: PrefectClient
}

/** The embedded server, or a real Prefect one, and a client of it. */
export async function openServer(which: 'embedded' | 'prefect2' | 'prefect3'): Promise<TestServer> {
  const stack = new AsyncDisposableStack()
  const { apiUrl } = which === 'embedded' ? await openEmbedded(stack) : stack.use(await startPrefectServer(which))
  const client = stack.use(new PrefectClient({ url: apiUrl, logger: silent }))
  return { apiUrl, client, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}

async function openEmbedded(stack: AsyncDisposableStack): Promise<{ apiUrl: string }> {
  const directory = stack.use(await makeDirectory())
  const options = { databasePath: `${directory.path}/server.db`, port: 0, logger: silent }
  return stack.use(await startServer(options, new AbortController().signal))
}
