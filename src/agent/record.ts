// What the journal remembers of one flow run: ids, the step, paths and handles. Never env, parameters or block data;
// those are read again on resume.
//
//   claiming ──> claimed ──> submitting ──> running ──> ended ──> (reported: the folder is gone)
//      │            └── could not be launched ────────────^
//      └── somebody else's, or nobody's any more ──> (forgotten)
//
// `claiming` and `submitting` are intents, on disk before the step; the others are facts, on disk before the next step.

import * as v from 'valibot'
import type { FlowRun } from '../prefect/types.ts'

/** Raised when a record of the new release could not be read by the old one. A release reads its own and the one before. */
export const recordVersion = 1

const HandleShape = v.object({
  type: v.string(),
  identifier: v.string(),
  flowRunId: v.string(),
  attempt: v.string(),
  transitionId: v.string(),
})

const ExitShape = v.variant('kind', [
  v.object({
    kind: v.literal('exited'),
    statusCode: v.optional(v.number(), undefined),
    signal: v.optional(v.string(), undefined),
    reason: v.optional(v.string(), undefined),
    outputTail: v.pipe(v.array(v.string()), v.readonly()),
  }),
  v.object({ kind: v.literal('vanished'), reason: v.string(), outputTail: v.pipe(v.array(v.string()), v.readonly()) }),
])

/** Why the agent itself ended the infrastructure. */
const StopShape = v.picklist(['cancelled', 'over', 'unknown', 'agent-stopped'])
export type StopReason = v.InferOutput<typeof StopShape>

/** How our part of the run ended: the infrastructure's exit, a launch that failed for good, or a claim given back. */
const EndingShape = v.variant('kind', [
  v.object({ kind: v.literal('exit'), exit: ExitShape }),
  v.object({ kind: v.literal('not-launched'), message: v.string() }),
  v.object({ kind: v.literal('given-back'), message: v.string(), delaySeconds: v.number() }),
  v.object({ kind: v.literal('restore') }),
])
export type Ending = v.InferOutput<typeof EndingShape>

const RecordShape = v.object({
  version: v.literal(recordVersion),
  step: v.picklist(['claiming', 'claimed', 'submitting', 'running', 'ended']),
  flowRunId: v.string(),
  flowRunName: v.string(),
  transitionId: v.string(),
  /** Of the machine when it was claimed; unknown for a record of an earlier release. */
  bootId: v.optional(v.string()),
  /** The flow run as the poll showed it: what a later look is compared with. */
  polled: v.object({
    stateId: v.nullable(v.string()),
    infrastructurePid: v.nullable(v.string()),
    /** Where the run came from: by these its server's database is known again (see database.ts). */
    deploymentId: v.nullish(v.string(), null),
    workQueueId: v.nullish(v.string(), null),
  }),
  /** Who tells the server what the flow did; known once it is decided what is run. */
  reports: v.optional(v.picklist(['engine', 'agent', 'command'])),
  infrastructureType: v.optional(v.string()),
  handle: v.optional(HandleShape),
  stop: v.optional(StopShape),
  ending: v.optional(EndingShape),
})
export type RunRecord = v.InferOutput<typeof RecordShape>

/** The first record of a run: the intent to claim it. */
export function newRecord(run: FlowRun, transitionId: string): RunRecord {
  return {
    version: recordVersion,
    step: 'claiming',
    flowRunId: run.id,
    flowRunName: run.name,
    transitionId,
    polled: {
      stateId: run.state?.id ?? null,
      infrastructurePid: run.infrastructure_pid,
      deploymentId: run.deployment_id,
      workQueueId: run.work_queue_id,
    },
  }
}

/** A record as found on disk. `newer` was written by a later release and must not be touched. */
export type FoundRecord =
  | { readonly kind: 'readable'; readonly record: RunRecord }
  | { readonly kind: 'unreadable'; readonly reason: string }
  | { readonly kind: 'newer'; readonly version: number }

/** Reads a record's text; anything that does not fit is a value, never an exception. */
export function readRecord(text: string): FoundRecord {
  let data: unknown
  try {
    data = JSON.parse(text)
  } catch (error) {
    return { kind: 'unreadable', reason: error instanceof Error ? error.message : String(error) }
  }
  if (typeof data === 'object' && data !== null && 'version' in data) {
    const version = Number(data.version)
    if (version > recordVersion) return { kind: 'newer', version }
  }
  const read = v.safeParse(RecordShape, data)
  if (read.success) return { kind: 'readable', record: read.output }
  return { kind: 'unreadable', reason: v.summarize(read.issues) }
}

/** Holds a slot: from the intent to claim until the infrastructure has ended; a report that waits holds none. */
export function holdsSlot(record: RunRecord): boolean {
  return record.step !== 'ended'
}

/** True once something may live in the infrastructure for this record. */
export function mayHaveInfrastructure(record: RunRecord): boolean {
  return record.step === 'submitting' || record.step === 'running'
}
