// Fails a test file that leaves something behind: a child process, or a socket, server or timer that keeps it alive.
// Loaded into each file by `npm test` (`--import`).
//
// Processes are found by a mark in the environment, which they inherit, so that those in a session of their own count.

import { randomUUID } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import process from 'node:process'
import { after } from 'node:test'
import { isMainThread } from 'node:worker_threads'

/** A file whose tests have ended has this long to end by itself. */
const LINGER_MS = 10_000
/** A process that was ended has this long to be gone: on a busy machine that takes a while. */
const PARTING_MS = 5_000
const LOOK_MS = 50

if (isMainThread && process.env.NODE_TEST_CONTEXT) watch()

function watch(): void {
  const mark = `RIGEL_TEST_FILE=${randomUUID()}`
  process.env.RIGEL_TEST_FILE = mark.slice('RIGEL_TEST_FILE='.length)

  after(() => {
    // Unreferenced: it fires only where something else keeps the process alive.
    setTimeout(() => {
      console.error(`left open after the last test: ${process.getActiveResourcesInfo().join(', ')}`)
      process.exit(1)
    }, LINGER_MS).unref()
  })

  process.on('exit', () => {
    let left = findProcesses(mark)
    // Nothing asynchronous happens any more.
    for (let waited = 0; left.length > 0 && waited < PARTING_MS; waited += LOOK_MS) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOOK_MS)
      left = findProcesses(mark)
    }
    if (left.length === 0) return
    console.error(`processes left behind:\n${left.map(({ pid, command }) => `  ${pid} ${command}`).join('\n')}`)
    for (const { pid } of left) end(pid)
    process.exitCode = 1
  })
}

/** Living processes of this machine that carry the mark; none where there is no /proc. */
function findProcesses(mark: string): readonly { readonly pid: number; readonly command: string }[] {
  const pids = attempt(() => readdirSync('/proc')) ?? []
  return pids.flatMap(name => {
    const pid = Number(name)
    if (!Number.isInteger(pid) || pid === process.pid) return []
    const environment = attempt(() => readFileSync(`/proc/${pid}/environ`, 'latin1')) ?? ''
    // One that has ended and waits to be collected has an empty environment, so it is not counted.
    if (!environment.split('\0').includes(mark)) return []
    const command = attempt(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8')) ?? ''
    return [{ pid, command: command.replaceAll('\0', ' ').trim() }]
  })
}

function end(pid: number): void {
  attempt(() => process.kill(pid, 'SIGKILL'))
}

/** Processes end while they are looked at; that is no error. */
function attempt<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch {
    return undefined
  }
}
