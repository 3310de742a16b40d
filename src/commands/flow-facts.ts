// What a deployment must know of its flow before it is ever run. A Python flow says it itself, when it is imported by the Python
// that is to run it; anything else is taken at its name.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { basename } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import * as v from 'valibot'
import { readPythonFacts } from '../agent/python.ts'
import { UserError } from '../errors.ts'
import { defaultPython } from './agent-options.ts'
import type { Context } from './context.ts'

const program = fileURLToPath(new URL('./inspect-flow.py', import.meta.url))
/** A flow's module may import much. Milliseconds. */
const patienceMs = 120_000
const shownCharacters = 500

const Facts = v.object({
  name: v.string(),
  version: v.nullable(v.string()),
  description: v.nullable(v.string()),
  schema: v.record(v.string(), v.unknown()),
  /** Prefect's own image of the same versions. */
  image: v.nullable(v.string()),
})
export type FlowFacts = v.InferOutput<typeof Facts>

const noParameters = { title: 'Parameters', type: 'object', properties: {} }

/**
 * `entrypoint` is `file.py:function`, or whatever else can be run. Throws a UserError when a Python flow cannot be imported;
 * without a Python that has Prefect it says so on stderr, and goes by the names alone.
 */
export async function readFlowFacts(context: Context, entrypoint: string, cwd: string): Promise<FlowFacts> {
  if (!/\.py:/.test(entrypoint)) return byName(nameOfProgram(entrypoint))
  const { config, signals, stderr } = context
  const python = defaultPython(config)
  const facts = await readPythonFacts(python, config.inheritedEnvironment, signals.stopping)
  if (facts?.prefect) return importFlow(context, { python, entrypoint, cwd })
  const what = facts ? `${facts.executable} (Python ${facts.python}) has no Prefect` : `there is no ${python}`
  stderr.write(
    `warning: the parameters of the flow are not known, for ${what}. Set RIGEL_PYTHON to a Python that has it, or --python.\n`,
  )
  // As Prefect names a flow that has no name of its own.
  return byName((entrypoint.split(':').at(-1) ?? entrypoint).replaceAll('_', '-'))
}

function byName(name: string): FlowFacts {
  return { name, version: null, description: null, schema: noParameters, image: null }
}

/** `./jobs/report.sh --fast` is `report`; `flows/etl.ts:main` is `main`. */
function nameOfProgram(entrypoint: string): string {
  const scripted = /\.[cm]?[jt]s:([^:\s]+)$/.exec(entrypoint)?.[1]
  return scripted ?? basename(entrypoint.trim().split(/\s+/)[0] ?? '').replace(/\.\w+$/, '')
}

interface Import {
  readonly python: string
  readonly entrypoint: string
  readonly cwd: string
}

async function importFlow({ config, signals }: Context, { python, entrypoint, cwd }: Import): Promise<FlowFacts> {
  const child = spawn(python, [program, '3', entrypoint], {
    cwd,
    env: { ...config.inheritedEnvironment, ...config.prefectEnvironment },
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    signal: AbortSignal.any([signals.stopping, AbortSignal.timeout(patienceMs)]),
    killSignal: 'SIGKILL',
  })
  const [, , errors, answers] = child.stdio
  if (!errors || !answers || !('read' in answers)) throw new Error('the pipes of a child were asked for')
  try {
    const [said, answer, [code]] = await Promise.all([text(errors), text(answers), once(child, 'close')])
    if (code === 0) return v.parse(Facts, JSON.parse(answer))
    const reason = readReasons(said).slice(0, shownCharacters) || `it ended with exit code ${code}`
    throw new UserError(`${python} could not import the flow "${entrypoint}": ${reason}`, { cause: new Error(said) })
  } catch (cause) {
    signals.stopping.throwIfAborted()
    if (cause instanceof UserError) throw cause
    throw new UserError(`${python} could not import the flow "${entrypoint}".`, { cause })
  }
}

/** The lines of a traceback that name an exception: what went wrong first, and what came of it. */
function readReasons(said: string): string {
  return [...new Set(said.split('\n').filter(line => /^[\w.]+(?:Error|Exception|Interrupt|Exit)\b/.test(line)))].join(
    '; ',
  )
}
