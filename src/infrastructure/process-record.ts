// What a run's supervisor and its agents leave for one another on disk, and how it is read.
//
//   <runs>/<flow run>/process/<attempt>-<N>/   one folder per submission; at most one N of an attempt ever starts
//     token    created (O_EXCL) by the supervisor before it starts anything, or by a successor so that it never will
//     record   supervisor and run: pids, start times, boot, pid namespace; complete before the run's command starts
//     exit     the run's exit code, blank until then
//     output   standard output and error; position, earlier: how far it is shipped, what was cut
//     files/   the run's small files; cwd/ an empty folder for a run that has none to work in
//
// The format has a version. A newer one than known is refused and left as it is.

import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { errorCode } from '../errors.ts'
import type { Attempt } from './infrastructure.ts'
import type { ProcessName } from './process-table.ts'

const VERSION = 1

/** One try to start an attempt. */
export interface Submission {
  readonly folder: string
  readonly number: number
}

export interface ProcessRecord {
  readonly submission: Submission
  readonly supervisor: ProcessName
  readonly run: ProcessName
  readonly bootId: string
  readonly pidNamespace: string
  /** The block's `stream_output`. */
  readonly isStreamed: boolean
}

export const inSubmission = {
  token: (folder: string): string => join(folder, 'token'),
  record: (folder: string): string => join(folder, 'record'),
  exit: (folder: string): string => join(folder, 'exit'),
  output: (folder: string): string => join(folder, 'output'),
  position: (folder: string): string => join(folder, 'position'),
  earlier: (folder: string): string => join(folder, 'earlier'),
  files: (folder: string): string => join(folder, 'files'),
  cwd: (folder: string): string => join(folder, 'cwd'),
}

export function processFolder(runsDirectory: string, flowRunId: string): string {
  return join(runsDirectory, flowRunId, 'process')
}

/** The submissions of one attempt, first one first; none when the run has no folder. */
export function listSubmissions(runsDirectory: string, { flowRunId, attempt }: Attempt): readonly Submission[] {
  const folder = processFolder(runsDirectory, flowRunId)
  const prefix = `${attempt}-`
  return readFolder(folder)
    .filter(name => name.startsWith(prefix))
    .map(name => ({ folder: join(folder, name), number: Number(name.slice(prefix.length)) }))
    .filter(({ number }) => Number.isInteger(number))
    .sort((a, b) => a.number - b.number)
}

/** Makes the folder of the next submission; undefined when somebody else made it first. */
export function makeSubmission(runsDirectory: string, attempt: Attempt, number: number): Submission | undefined {
  const parent = processFolder(runsDirectory, attempt.flowRunId)
  makeFolder(parent)
  const folder = join(parent, `${attempt.attempt}-${number}`)
  return makeFolder(folder) ? { folder, number } : undefined
}

/** False when it was there already. */
export function makeFolder(path: string): boolean {
  try {
    mkdirSync(path, { mode: 0o700 })
    return true
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false
    throw error
  }
}

/** True when the caller now knows that this submission has started nothing and never will. */
export function takeToken({ folder }: Submission): boolean {
  try {
    const token = openSync(inSubmission.token(folder), 'wx', 0o600)
    // For people who look; what counts is that the file is there, so a full disk does not matter.
    try {
      writeSync(token, 'given up\n')
    } finally {
      closeSync(token)
    }
    return true
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false
    // No folder: its supervisor can take no token either. No room: the empty file is there all the same.
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOSPC') return true
    throw error
  }
}

/** Undefined while there is none or it is not complete. */
export function readRecord(submission: Submission): ProcessRecord | undefined {
  const text = readText(inSubmission.record(submission.folder))
  if (text === undefined) return undefined
  const words = text.trimEnd().split(' ')
  refuseNewer(submission.folder, words[1])
  if (words.length !== 10 || words[0] !== 'rigel-process' || words[9] !== 'end' || !text.endsWith('\n'))
    return undefined
  const [, , supervisorPid, supervisorStart = '', runPid, runStart = '', bootId = '', pidNamespace = '', stream] = words
  return {
    submission,
    supervisor: { pid: Number(supervisorPid), start: supervisorStart },
    run: { pid: Number(runPid), start: runStart },
    bootId,
    pidNamespace,
    isStreamed: stream === 'stream',
  }
}

/** The run's exit code as its supervisor saw it (128 + n for signal n), or undefined while there is none. */
export function readExitCode(submission: Submission): number | undefined {
  const match = /^rigel-exit (\d+) (\d+) end\n/.exec(readText(inSubmission.exit(submission.folder)) ?? '')
  if (!match) return undefined
  refuseNewer(submission.folder, match[1])
  return Number(match[2])
}

/** The record of the one submission that has started this attempt, if any has. */
export function findRecord(runsDirectory: string, attempt: Attempt): ProcessRecord | undefined {
  for (const submission of listSubmissions(runsDirectory, attempt).toReversed()) {
    const record = readRecord(submission)
    if (record) return record
  }
  return undefined
}

function refuseNewer(folder: string, version: string | undefined): void {
  if (Number(version) > VERSION)
    throw new Error(`${folder} was written by a newer Rigel (format ${version}); use that one`)
}

export function readText(path: string): string | undefined {
  // Asked first, because most often it is not there, and an exception costs ten times as much.
  if (!existsSync(path)) return undefined
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw error
  }
}

function readFolder(path: string): readonly string[] {
  if (!existsSync(path)) return []
  try {
    return readdirSync(path)
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return []
    throw error
  }
}
