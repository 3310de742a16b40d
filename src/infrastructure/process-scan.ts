// Finds all that belongs to a run among the processes of this machine.
//
// Its session and process group, their descendants, and whatever carries the run's variables, which stay with a process
// that has left by setsid. Reading each process's variables costs some 20 ms per thousand: kills at the same time share it.

import { pid as ownPid } from 'node:process'
import type { Attempt } from './infrastructure.ts'
import type { ProcessRecord } from './process-record.ts'
import { isDead, listProcesses, type ProcessEntry, readEnvironment } from './process-table.ts'

/** Variables that the driver gives to each run; together they name the attempt. */
export function attemptMarks({ flowRunId, attempt }: Pick<Attempt, 'flowRunId' | 'attempt'>) {
  return { PREFECT__FLOW_RUN_ID: flowRunId, RIGEL_ATTEMPT: attempt }
}

export interface Scan {
  readonly table: readonly ProcessEntry[]
  /** Living processes by the attempt whose marks they carry, as `flow run id/attempt`. */
  readonly marked: ReadonlyMap<string, readonly ProcessEntry[]>
}

/** Scans at most once per turn of the event loop, for whoever asked before it began. */
export class Scanner {
  #next: Promise<Scan> | undefined

  async scan(): Promise<Scan> {
    this.#next ??= new Promise<void>(resolve => setImmediate(resolve)).then(() => {
      this.#next = undefined
      return scanProcesses()
    })
    return await this.#next
  }
}

export function scanProcesses(): Scan {
  const table = listProcesses()
  const marked = new Map<string, ProcessEntry[]>()
  for (const entry of table) {
    const mark = isDead(entry) ? undefined : readMark(entry.pid)
    if (mark === undefined) continue
    const entries = marked.get(mark)
    if (entries) entries.push(entry)
    else marked.set(mark, [entry])
  }
  return { table, marked }
}

function readMark(pid: number): string | undefined {
  let flowRunId: string | undefined
  let attempt: string | undefined
  for (const variable of readEnvironment(pid)) {
    if (variable.startsWith('PREFECT__FLOW_RUN_ID=')) flowRunId = variable.slice('PREFECT__FLOW_RUN_ID='.length)
    else if (variable.startsWith('RIGEL_ATTEMPT=')) attempt = variable.slice('RIGEL_ATTEMPT='.length)
  }
  return flowRunId !== undefined && attempt !== undefined ? `${flowRunId}/${attempt}` : undefined
}

/** All living processes of the run, as of the scan; never its supervisor, never this process. */
export function findMembers(
  { run, supervisor }: ProcessRecord,
  { flowRunId, attempt }: Attempt,
  { table, marked }: Scan,
): readonly ProcessEntry[] {
  const members = new Map<number, ProcessEntry>()
  for (const entry of marked.get(`${flowRunId}/${attempt}`) ?? []) members.set(entry.pid, entry)
  // While the leader's pid is in use by another process, its old group and session must be empty (the kernel does not
  // give out a pid that still names a group). With nobody under it, members are told by their marks alone.
  if (table.some(({ pid, start }) => pid === run.pid && start === run.start)) {
    for (const entry of table) if (entry.group === run.pid || entry.session === run.pid) members.set(entry.pid, entry)
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
