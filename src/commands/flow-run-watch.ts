// Stays with one flow run until it has ended: its states on stderr, its log lines wherever the caller wants them.

import { sleep } from '../async/sleep.ts'
import { UserError } from '../errors.ts'
import { isTerminal } from '../prefect/states.ts'
import type { FlowRun, Log } from '../prefect/types.ts'
import type { Ask } from './connect.ts'
import type { Context } from './context.ts'
import { LogReader } from './flow-run-logs.ts'
import { printJson } from './output.ts'

const EVERY_MS = 1000
/** An engine sends its last lines up to 2 s after the last state: Prefect's PREFECT_LOGGING_TO_API_BATCH_INTERVAL. */
const LAST_LINES_MS = 3000

/** Resolves to the exit code: 0 when the run has ended as Completed, 1 for any other end. */
export async function watchRun(
  context: Context,
  ask: Ask,
  id: string,
  show: (lines: readonly Log[]) => void,
): Promise<number> {
  const { stopping } = context.signals
  const logs = new LogReader(id)
  let shown: string | null | undefined
  let endedAt: number | undefined
  for (;;) {
    const askedAt = performance.now()
    const { run, lines } = await ask(async (client, signal) => ({
      run: await client.readFlowRun(id, signal),
      lines: await logs.readNew(client, signal),
    }))
    if (!run) throw new UserError(`The flow run ${id} has been deleted.`)
    show(lines)
    if (run.state_name !== shown) context.stderr.write(`${describeState(run)}\n`)
    shown = run.state_name
    if (!isTerminal(run.state_type)) endedAt = undefined
    // What came while the answer was on its way is not in it.
    else if (endedAt !== undefined && askedAt - endedAt > LAST_LINES_MS) return finish(context, run)
    else endedAt ??= performance.now()
    await sleep(EVERY_MS, stopping)
    stopping.throwIfAborted()
  }
}

function finish(context: Context, run: FlowRun): number {
  if (context.format === 'json') printJson(context, run)
  return run.state_type === 'COMPLETED' ? 0 : 1
}

function describeState({ name, state_name, state }: FlowRun): string {
  const message = state?.message ? `: ${state.message}` : ''
  return `flow run "${name}" is ${state_name ?? 'without a state'}${message}`
}
