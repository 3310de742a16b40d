// Which Python runs flows, and whether Prefect is in it: said once at start, so nobody finds out by a crashed run.

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import * as v from 'valibot'

const FactsShape = v.object({ executable: v.string(), python: v.string(), prefect: v.nullable(v.string()) })
/** Versions as text; `prefect` is null when that Python has none. */
export type PythonFacts = v.InferOutput<typeof FactsShape>

/** Asks the package's data, for importing Prefect itself would take seconds. */
const question = `
import json, platform, sys
from importlib import metadata
try:
    prefect = metadata.version("prefect")
except metadata.PackageNotFoundError:
    prefect = None
print(json.dumps({"executable": sys.executable, "python": platform.python_version(), "prefect": prefect}))
`

/** Undefined when there is no such Python, or it does not answer within ten seconds. */
export async function readPythonFacts(
  python: string,
  environment: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<PythonFacts | undefined> {
  try {
    const options = { env: environment, signal, timeout: 10_000, killSignal: 'SIGKILL' as const }
    const { stdout } = await promisify(execFile)(python, ['-c', question], options)
    return v.parse(FactsShape, JSON.parse(stdout))
  } catch {
    signal.throwIfAborted()
    return undefined // not there, or not a Python: the caller says so
  }
}
