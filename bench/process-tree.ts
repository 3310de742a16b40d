// What a process and all that descends from it use: memory as PSS (shared pages by halves, quarters ...), processor time.

import { readdirSync, readFileSync } from 'node:fs'

/** Linux counts in hundredths of a second for everybody who asks. */
const MS_PER_TICK = 10

export interface Usage {
  readonly processes: number
  readonly pssMiB: number
}

/** PSS of the tree. A process that ends meanwhile is left out. */
export function readUsage(root: number): Usage {
  const pids = listTree(root)
  return { processes: pids.length, pssMiB: pids.reduce((sum, pid) => sum + readPssKiB(pid), 0) / 1024 }
}

/** Processor time of the process itself so far, in milliseconds; `withChildren` adds those that have ended and been waited for. */
export function readProcessorMs(pid: number, withChildren: boolean): number {
  const [utime = 0, stime = 0, cutime = 0, cstime = 0] = readStat(pid).slice(11, 15).map(Number)
  return (utime + stime + (withChildren ? cutime + cstime : 0)) * MS_PER_TICK
}

function listTree(root: number): readonly number[] {
  const children = new Map<number, number[]>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const parent = Number(readStat(Number(name))[1])
    children.set(parent, [...(children.get(parent) ?? []), Number(name)])
  }
  const found = [root]
  // Grows while it is walked.
  for (const pid of found) found.push(...(children.get(pid) ?? []))
  return found
}

/** Fields of /proc/PID/stat behind the name, which may hold anything; the first is the state. Empty when it is gone. */
function readStat(pid: number): readonly string[] {
  const text = readOrEmpty(`/proc/${pid}/stat`)
  return text.slice(text.lastIndexOf(')') + 2).split(' ')
}

function readPssKiB(pid: number): number {
  return Number(/^Pss:\s+(\d+)/m.exec(readOrEmpty(`/proc/${pid}/smaps_rollup`))?.[1] ?? 0)
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return '' // ended meanwhile
  }
}
