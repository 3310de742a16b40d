// Ends a run with everything that it has started: asks, waits, forces.
//
// What belongs to it is found by process-scan.ts. A pid is signalled only while its start time is the one that was looked up.
// (Between that look and the signal a pid could be used again within microseconds; the kernel hands pids out in turn.)

import { kill } from 'node:process'
import { sleep } from '../async/sleep.ts'
import { errorCode } from '../errors.ts'
import type { Attempt } from './infrastructure.ts'
import type { ProcessRecord } from './process-record.ts'
import { findMembers, type Scanner } from './process-scan.ts'
import { isAlive, type ProcessEntry, type ProcessName, readProcess } from './process-table.ts'

const FIRST_LOOK_MS = 10
const LAST_LOOK_MS = 250

export interface KillOptions {
  readonly record: ProcessRecord
  readonly attempt: Attempt
  readonly graceSeconds: number
  /** One for all kills of a driver. */
  readonly scanner: Scanner
}

/** Returns when nothing of the run is left. Rejects with the signal's reason when it is aborted before. */
export async function killRun(options: KillOptions, signal: AbortSignal): Promise<void> {
  const { record, attempt, graceSeconds, scanner } = options
  const forceAt = performance.now() + graceSeconds * 1000
  const asked = new Set<string>()
  let members: readonly ProcessEntry[] = []
  for (let pause = FIRST_LOOK_MS; ; pause = Math.min(pause * 1.5, LAST_LOOK_MS)) {
    signal.throwIfAborted()
    // The whole table only when those known are gone: they may have left others.
    members = members.filter(member => isAlive(member))
    const isForced = performance.now() >= forceAt
    if (members.length === 0 || isForced) members = findMembers(record, attempt, await scanner.scan())
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
