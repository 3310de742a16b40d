// Reads the small Python program that stands before Prefect's engine; launch/ takes its text as a value.

import { readFile } from 'node:fs/promises'

/** The text of launch/engine-shim.py, which lies beside the compiled code as well. Read it once for each agent. */
export async function readEngineShim(): Promise<string> {
  return await readFile(new URL('../launch/engine-shim.py', import.meta.url), 'utf8')
}
