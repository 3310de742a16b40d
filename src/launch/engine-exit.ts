// Reads what engine-shim.py says when it ends before any engine could start.

import type { Exited } from '../infrastructure/infrastructure.ts'

/** Exit code of engine-shim.py when the Python has no Prefect (EX_CONFIG; the engine itself ends with 0, 1 or a signal). */
export const noPrefectExitCode = 78

/** A sentence for people when the engine could not start for want of Prefect; undefined for every other ending. */
export function explainEngineExit(exit: Pick<Exited, 'statusCode' | 'outputTail'>): string | undefined {
  if (exit.statusCode !== noPrefectExitCode) return undefined
  for (const line of exit.outputTail.toReversed()) {
    const found = /rigel: no Prefect in (.+) \(([\w.+]+)\)$/.exec(line.trimEnd())
    if (found) {
      return `Python ${found[2]} at ${found[1]} has no Prefect: install it there, or name another Python in RIGEL_PYTHON.`
    }
  }
  return undefined
}
