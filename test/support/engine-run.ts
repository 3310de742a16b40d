// A flow run on a real server whose engine is started by hand, as an agent would start it: deployment, run, Pending.

import { spawn } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import * as v from 'valibot'

import { cleanEnvironment, findPrefect, type PrefectServer, type PrefectVersion } from './prefect-server.ts'

export const shim = fileURLToPath(new URL('../../src/launch/engine-shim.py', import.meta.url))

const mostAttempts = 20

const Created = v.object({ id: v.string() })
const Run = v.object({ state: v.object({ type: v.string(), name: v.string(), message: v.nullish(v.string()) }) })
const Logs = v.array(v.object({ message: v.string() }))

export interface EngineExit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly output: string
}

export async function writeFiles(directory: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(directory, name)), { recursive: true })
    await writeFile(join(directory, name), content)
  }
}

/** A server on SQLite answers 503, or drops a connection, when several write at once: setting up a run waits for it. */
async function call(server: PrefectServer, path: string, body?: unknown): Promise<unknown> {
  for (let attempt = 1; ; attempt++) {
    const answer = await fetch(`${server.apiUrl}${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    }).catch((error: unknown) => {
      if (attempt === mostAttempts) throw error
      return undefined
    })
    if (answer?.ok) return await answer.json()
    if (answer && (answer.status !== 503 || attempt === mostAttempts)) {
      throw new Error(`${path} answered ${answer.status}: ${await answer.text()}`)
    }
    await delay(300)
  }
}

/** Creates flow and deployment; gives the deployment's id. */
export async function createDeployment(
  server: PrefectServer,
  deployment: { readonly name: string; readonly entrypoint: string } & Readonly<Record<string, unknown>>,
): Promise<string> {
  const flow = v.parse(Created, await call(server, '/flows/', { name: 'main' }))
  return v.parse(Created, await call(server, '/deployments/', { ...deployment, flow_id: flow.id })).id
}

/** Creates a run of the deployment that an agent has claimed: it is Pending. */
export async function createClaimedRun(
  server: PrefectServer,
  deploymentId: string,
  parameters: Readonly<Record<string, unknown>> = {},
): Promise<string> {
  const { id } = v.parse(Created, await call(server, `/deployments/${deploymentId}/create_flow_run`, { parameters }))
  await claim(server, id)
  return id
}

export async function claim(server: PrefectServer, runId: string): Promise<void> {
  await call(server, `/flow_runs/${runId}/set_state`, { state: { type: 'PENDING' } })
}

export async function resume(server: PrefectServer, runId: string): Promise<void> {
  await call(server, `/flow_runs/${runId}/resume`, {})
}

export async function readState(server: PrefectServer, runId: string) {
  return v.parse(Run, await call(server, `/flow_runs/${runId}`)).state
}

export async function countRuns(server: PrefectServer, deploymentId: string): Promise<number> {
  return v.parse(v.number(), await call(server, '/flow_runs/count', { deployments: { id: { any_: [deploymentId] } } }))
}

export async function readMessages(server: PrefectServer, runId: string): Promise<readonly string[]> {
  const filter = { logs: { flow_run_id: { any_: [runId] } }, limit: 200 }
  return v.parse(Logs, await call(server, '/logs/filter', filter)).map(log => log.message)
}

/** Starts a Python of the environment and waits for its end; `onStart` gets its pid. */
export async function runPython(
  which: PrefectVersion,
  args: readonly string[],
  options: {
    readonly cwd: string
    readonly env: Readonly<Record<string, string>>
    readonly onStart?: (pid: number) => Promise<void>
  },
): Promise<EngineExit> {
  const child = spawn(join(findPrefect(which), 'bin', 'python'), args, {
    cwd: options.cwd,
    env: { ...cleanEnvironment(), PYTHONDONTWRITEBYTECODE: '1', ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = new Promise<Omit<EngineExit, 'output'>>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve({ code, signal }))
  })
  const output = Promise.all([text(child.stdout), text(child.stderr)])
  try {
    // One that has ended before its time is not waited for.
    if (child.pid !== undefined) await Promise.race([options.onStart?.(child.pid), ended])
    return { ...(await ended), output: (await output).join('') }
  } catch (error) {
    child.kill('SIGKILL')
    const told = (await output).join('')
    throw new Error(`the engine was ended by the test; it said:\n${told}`, { cause: error })
  }
}
