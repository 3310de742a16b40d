// Sees to it that an attempt starts once, whoever asks for it and how often.
//
//                 nobody has the token            the supervisor has it          a successor has it
//   record        -                               adopt: it runs or has run      -
//   no record     take it: it will never start    wait: it writes one, or dies   it will never start
//
// Each submission has its own folder and token; after one that will never start the next number is free.

import { sleep } from '../async/sleep.ts'
import { type Attempt, InfrastructureError } from './infrastructure.ts'
import { explainSpawnError } from './process-blame.ts'
import {
  listSubmissions,
  makeSubmission,
  type ProcessRecord,
  readRecord,
  type Submission,
  takeToken,
} from './process-record.ts'
import { listProcesses, readCommand } from './process-table.ts'

/** How long another submitter's supervisor gets to take its token before it is taken away: it takes 2 ms when calm. */
const PATIENCE_MS = 1000
const LOOK_EVERY_MS = 10
/** A supervisor that cannot even fill its token, on a full disk, ends like one that lost it: not for ever. */
const MOST_SUBMISSIONS = 20

/** `lost`: its token was taken away, it has started nothing; `ended`: so has it, for want of something. */
export type StartAnswer = 'started' | 'lost' | 'ended'

export interface SubmitOptions {
  readonly runsDirectory: string
  readonly attempt: Attempt
  /** Starts this submission, and resolves when its folder has the answer. */
  readonly start: (submission: Submission) => Promise<StartAnswer>
}

/**
 * Starts the attempt, or adopts what has started it. Throws an InfrastructureError when it is certain that nothing was
 * started; what goes wrong while looking for what was says nothing of that, and comes as it is.
 */
export async function submitOnce(options: SubmitOptions, signal: AbortSignal): Promise<ProcessRecord> {
  for (;;) {
    signal.throwIfAborted()
    const { runsDirectory, attempt } = options
    const existing = listSubmissions(runsDirectory, attempt)
    for (const submission of existing) {
      const record = await settleSubmission(submission, PATIENCE_MS, signal)
      if (record) return record
    }
    const number = (existing.at(-1)?.number ?? 0) + 1
    if (number > MOST_SUBMISSIONS) throw couldNotStart()
    const submission = makeOrExplain(() => makeSubmission(runsDirectory, attempt, number))
    if (submission === undefined) continue // Another submitter was faster: look at theirs.
    const answer = await options.start(submission).catch((error: unknown) => ({ error }))
    // A failed start may have left a supervisor all the same; after this it can start nothing.
    const record = await settleSubmission(submission, 0, signal)
    if (record) return record
    if (typeof answer === 'object') throw signal.aborted ? answer.error : explainSpawnError(answer.error)
    if (answer === 'ended') throw couldNotStart()
    // Its token was taken away: another submitter of the same attempt goes on with the next number.
  }
}

function makeOrExplain<T>(make: () => T): T {
  try {
    return make()
  } catch (error) {
    throw explainSpawnError(error)
  }
}

function couldNotStart(): InfrastructureError {
  return new InfrastructureError(
    'The supervisor ended before it could start the run: no process, or no room for its record, could be had',
    { blame: 'host' },
  )
}

/** Finds what has started the attempt; undefined is the promise that nothing has or will. */
export async function findStarted(
  runsDirectory: string,
  attempt: Attempt,
  signal: AbortSignal,
): Promise<ProcessRecord | undefined> {
  for (const submission of listSubmissions(runsDirectory, attempt)) {
    const record = await settleSubmission(submission, 0, signal)
    if (record) return record
  }
  return undefined
}

/** Waits until a submission has a record, or makes sure that it never will. */
async function settleSubmission(
  submission: Submission,
  patienceMs: number,
  signal: AbortSignal,
): Promise<ProcessRecord | undefined> {
  const impatientAt = performance.now() + patienceMs
  for (;;) {
    const record = readRecord(submission)
    if (record) return record
    if (performance.now() >= impatientAt) {
      if (takeToken(submission)) return undefined
      // Twice: the first look can miss a supervisor's child that was born while its parent died.
      if (!isSupervised(submission) && !isSupervised(submission)) return readRecord(submission)
    }
    signal.throwIfAborted()
    await sleep(LOOK_EVERY_MS, signal)
  }
}

/** True while a supervisor, or its child that has not yet become the run, lives: both carry the folder in their arguments. */
function isSupervised({ folder }: Submission): boolean {
  return listProcesses().some(entry => entry.state !== 'Z' && readCommand(entry.pid).includes(folder))
}
