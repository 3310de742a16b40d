// Names the process that works on something in a shared folder, so that others can tell whether it still lives.
//
// A pid alone lies: it is reused, and means something else in another container. So the name holds boot, pid namespace, pid
// and start time; where these cannot be compared, others go by the age of what was left.

import { readFileSync, readlinkSync } from 'node:fs'
import process from 'node:process'

/** `<boot id>-<pid namespace>-<pid>-<start time>`, fit for a file name. Without /proc (macOS) all but the pid are 0. */
export function ownName(): string {
  return [bootId(), pidNamespace(), process.pid, startTime(process.pid) ?? '0'].join('-')
}

/** `unknown`: it belongs to another pid namespace, or to a machine that does not say. */
export function lifeOf(owner: string): 'alive' | 'dead' | 'unknown' {
  const [boot, namespace, pid, start] = owner.split('-')
  if (boot === undefined || namespace === undefined || pid === undefined || start === undefined) return 'unknown'
  if (boot === '0' || bootId() === '0') return 'unknown'
  if (boot !== bootId()) return 'dead'
  if (namespace !== pidNamespace()) return 'unknown'
  return startTime(Number(pid)) === start ? 'alive' : 'dead'
}

function bootId(): string {
  return (
    read(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim().replaceAll('-', '').slice(0, 12)) ?? '0'
  )
}

function pidNamespace(): string {
  return read(() => /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0]) ?? '0'
}

/** Clock ticks after boot; undefined when there is no such process. The name in the line may hold anything, even `)`. */
function startTime(pid: number): string | undefined {
  const line = read(() => readFileSync(`/proc/${pid}/stat`, 'utf8'))
  const fields = line?.slice(line.lastIndexOf(')') + 2).split(' ')
  return fields?.[0] === 'Z' ? undefined : fields?.[19]
}

function read<T>(get: () => T): T | undefined {
  try {
    return get()
  } catch {
    return undefined
  }
}
