// Ends a run with everything that it has started: asks, waits, forces.
//
// What belongs to it: its session and process group, their descendants, and whatever carries the run's variables, which
// stay with a process that has left by setsid. A pid is signalled only while its start time is the one that was looked up.
// (Between that look and the signal a pid could be used again within microseconds; the kernel hands pids out in turn.)

import { kill, pid as ownPid } from 'node:process'
import { sleep } from '../async/sleep.ts'
import { errorCode } from '../errors.ts'
import type { ProcessRecord } from './process-record.ts'
import {
  isAlive,
  isDead,
  listProcesses,
  type ProcessEntry,
  type ProcessName,
  readEnvironment,
  readProcess,
} from './process-table.ts'

const FIRST_LOOK_MS = 10
const LAST_LOOK_MS = 250

/** Variables that the driver gives to each run; together they name the attempt. */
export function attemptMarks(flowRunId: string, attempt: string): Readonly<Record<string, string>> {
  return { PREFECT__FLOW_RUN_ID: flowRunId, RIGEL_ATTEMPT: attempt }
}

export interface KillOptions {
  readonly record: ProcessRecord
  /** `NAME=value` of the marks in the run's environment. */
  readonly marks: readonly string[]
  readonly graceSeconds: number
}

/** Returns when nothing of the run is left. Rejects with the signal's reason when it is aborted before. */
export async function killRun({ record, marks, graceSeconds }: KillOptions, signal: AbortSignal): Promise<void> {
  const forceAt = performance.now() + graceSeconds * 1000
  const asked = new Set<string>()
  let members: readonly ProcessEntry[] = []
  for (let pause = FIRST_LOOK_MS; ; pause = Math.min(pause * 1.5, LAST_LOOK_MS)) {
    signal.throwIfAborted()
    // The whole table only when those known are gone: they may have left others.
    members = members.filter(member => isAlive(member))
    const isForced = performance.now() >= forceAt
    if (members.length === 0 || isForced) members = findMembers(record, marks)
    if (members.length === 0) break
    if (isForced) signalAll(record, members, 'SIGKILL')
    else
      ask(
        record,
        members.filter(member => !asked.has(nameOf(member))),
      )
    for (const member of members) asked.add(nameOf(member))
    await sleep(isForced ? FIRST_LOOK_MS : Math.min(pause, Math.max(1, forceAt - performance.now())), signal)
  }
  await waitForSupervisor(record, signal)
}

const nameOf = ({ pid, start }: ProcessEntry): string => `${pid} ${start}`

function ask(record: ProcessRecord, members: readonly ProcessEntry[]): void {
  signalAll(record, members, 'SIGTERM')
  // A stopped process hears SIGTERM only when it goes on.
  for (const member of members) if (member.state === 'T') send(member.pid, 'SIGCONT')
}

/** The group at once, for its members could fork faster than they can be told one by one; then those outside it. */
function signalAll({ run }: ProcessRecord, members: readonly ProcessEntry[], signal: NodeJS.Signals): void {
  const isGroupOurs = readProcess(run.pid)?.start === run.start && members.some(({ group }) => group === run.pid)
  if (isGroupOurs) send(-run.pid, signal)
  for (const member of members) {
    // Read again: one that has left the group since the table was read has not heard the signal to the group.
    if (!isGroupOurs || readProcess(member.pid)?.group !== run.pid) sendVerified(member, signal)
  }
}

/** The supervisor has only to write the exit code now; killed by somebody, it is not waited for. */
async function waitForSupervisor({ supervisor }: ProcessRecord, signal: AbortSignal): Promise<void> {
  while (isAlive(supervisor)) {
    sendVerified(supervisor, 'SIGCONT')
    await sleep(FIRST_LOOK_MS, signal)
    signal.throwIfAborted()
  }
}

/** All living processes of the run, as of now; never its supervisor, never this process. */
export function findMembers({ run, supervisor }: ProcessRecord, marks: readonly string[]): readonly ProcessEntry[] {
  const table = listProcesses()
  const leader = table.find(({ pid }) => pid === run.pid)
  // While the leader's pid is in use by another process, its old group and session must be empty (the kernel does not
  // give out a pid that still names a group). With nobody under it, members are told by their marks alone.
  const isGroupOurs = leader?.start === run.start
  const members = new Map<number, ProcessEntry>()
  for (const entry of table) {
    if (isGroupOurs && (entry.group === run.pid || entry.session === run.pid)) members.set(entry.pid, entry)
    else if (isMarked(entry, marks)) members.set(entry.pid, entry)
  }
  addDescendants(members, table)
  members.delete(supervisor.pid)
  members.delete(ownPid)
  return [...members.values()].filter(entry => !isDead(entry))
}

function addDescendants(members: Map<number, ProcessEntry>, table: readonly ProcessEntry[]): void {
  for (let grown = true; grown; ) {
    grown = false
    for (const entry of table) {
      if (members.has(entry.parent) && !members.has(entry.pid)) {
        members.set(entry.pid, entry)
        grown = true
      }
    }
  }
}

function isMarked(entry: ProcessEntry, marks: readonly string[]): boolean {
  if (isDead(entry)) return false
  const environment = readEnvironment(entry.pid)
  return marks.every(mark => environment.includes(mark))
}

function sendVerified(name: ProcessName, signal: NodeJS.Signals): void {
  if (readProcess(name.pid)?.start === name.start) send(name.pid, signal)
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    kill(pid, signal)
  } catch (error) {
    if (errorCode(error) === 'ESRCH') return // It ended in between.
    throw new Error(`Could not end process ${Math.abs(pid)}, which belongs to the run, with ${signal}`, {
      cause: error,
    })
  }
}
