// What the kernel knows of processes: who lives, since when, and who belongs to whom.
//
// A pid alone means nothing, for pids are used again: a process is named by pid and start time together.
// Linux reads /proc. macOS asks `ps`, good enough for trying Rigel by hand.

import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { platform } from 'node:process'

export interface ProcessName {
  readonly pid: number
  /** Clock ticks since boot on Linux, a date without spaces elsewhere: only ever compared. */
  readonly start: string
}

export interface ProcessEntry extends ProcessName {
  /** The kernel's letter: `Z` and `X` are dead, `T` is stopped. */
  readonly state: string
  readonly parent: number
  readonly group: number
  readonly session: number
}

const isLinux = platform === 'linux'

/** True unless it has ended; a zombie, which its parent has not yet reaped, has ended. */
export function isAlive(name: ProcessName): boolean {
  const entry = readProcess(name.pid)
  return entry !== undefined && entry.start === name.start && !isDead(entry)
}

export function isDead(entry: ProcessEntry): boolean {
  return entry.state === 'Z' || entry.state === 'X'
}

export function readProcess(pid: number): ProcessEntry | undefined {
  if (!isLinux) return askPs(['-p', String(pid)])[0]
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, 'latin1'))
  } catch {
    return undefined // It ended before or while it was looked at.
  }
}

/** All processes that can be seen, zombies included. */
export function listProcesses(): readonly ProcessEntry[] {
  if (!isLinux) return askPs(['-A'])
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(name => readProcess(Number(name)))
    .filter(entry => entry !== undefined)
}

/** Variables that a process was started with, as far as this user may see them; they stay the same after `setsid`. */
export function readEnvironment(pid: number): readonly string[] {
  return isLinux ? readWords(`/proc/${pid}/environ`) : askPsFor(pid, ['eww', '-o', 'command='])
}

/** The argument vector of a process. */
export function readCommand(pid: number): readonly string[] {
  return isLinux ? readWords(`/proc/${pid}/cmdline`) : askPsFor(pid, ['-ww', '-o', 'command='])
}

/** The namespace in which this process's pids mean something, `pid:[4026531836]`. */
export function readPidNamespace(): string {
  return isLinux ? readlinkSync('/proc/self/ns/pid') : 'none'
}

/** `pid (name) state ppid pgrp session … starttime …`; the name may hold spaces and brackets. See proc_pid_stat(5). */
function parseStat(text: string): ProcessEntry {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const number = (at: number): number => Number(fields[at])
  return {
    pid: Number.parseInt(text, 10),
    state: fields[0] ?? '',
    parent: number(1),
    group: number(2),
    session: number(3),
    start: fields[19] ?? '',
  }
}

function readWords(path: string): readonly string[] {
  try {
    return readFileSync(path, 'utf8').split('\0')
  } catch {
    return []
  }
}

function askPs(which: readonly string[]): readonly ProcessEntry[] {
  const columns = ['-o', 'pid=', '-o', 'state=', '-o', 'ppid=', '-o', 'pgid=', '-o', 'sess=', '-o', 'lstart=']
  return runPs([...which, ...columns]).map(line => {
    const [pid, state, parent, group, session, ...start] = line.trim().split(/\s+/)
    return {
      pid: Number(pid),
      state: state?.[0] ?? '',
      parent: Number(parent),
      group: Number(group),
      session: Number(session),
      start: start.join('_'),
    }
  })
}

function askPsFor(pid: number, options: readonly string[]): readonly string[] {
  return runPs([...options, '-p', String(pid)]).flatMap(line => line.split(' '))
}

function runPs(options: readonly string[]): readonly string[] {
  try {
    const text = execFileSync('ps', [...options], { encoding: 'utf8', env: { LC_ALL: 'C', PATH: '/bin:/usr/bin' } })
    return text.split('\n').filter(line => line.trim() !== '')
  } catch {
    return [] // ps ends with 1 when there is no such process.
  }
}
