// The owner of the tree worker: starts it at the first job, gives it one job at a time, ends it when it has been idle, so
// that a resting agent does not pay the 10 MiB of a thread.

import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import { describeError } from '../errors.ts'
import { StorageError } from './storage.ts'
import type { TreeJob, TreeReply, TreeRequest, TreeResult } from './tree-worker.ts'
import { DamagedTreeError } from './unpack-tree.ts'

const idleMs = 5_000
/** A job hears an abort before each file. One that has not heard it by then stands in a call of the system, on a dead network disk. */
const stuckMs = 5_000
// `.ts` in a checkout, `.js` in the package.
const program = new URL(`./tree-worker${extname(import.meta.filename)}`, import.meta.url)

interface Waiting {
  readonly request: TreeRequest
  readonly settle: (reply: TreeReply) => void
}

/** What failed in the worker; `code` is that of a system error. */
class TreeJobError extends StorageError {
  readonly code: string | undefined

  constructor({ message, blame, code }: { message: string; blame: 'run' | 'host'; code: string | undefined }) {
    super(message, { blame })
    this.code = code
  }
}

let worker: Worker | undefined
let current: Waiting | undefined
let idleTimer: NodeJS.Timeout | undefined
const queue: Waiting[] = []
const abandoned: TreeReply = { ok: false, message: 'It was given up', blame: 'run', code: undefined }

/**
 * Does one job in the worker. Rejects with a StorageError, with a DamagedTreeError, or with the signal's reason when it is
 * aborted; then nothing of the job is running any more, unless it hangs in the system.
 */
export async function runTreeJob(job: TreeJob, signal: AbortSignal): Promise<TreeResult> {
  signal.throwIfAborted()
  const { promise, resolve: settle } = Promise.withResolvers<TreeReply>()
  const cancelled = new Int32Array(new SharedArrayBuffer(4))
  const waiting = { request: { job, cancelled }, settle }
  let stuck: NodeJS.Timeout | undefined
  const cancel = () => {
    Atomics.store(cancelled, 0, 1)
    if (current === waiting) stuck = setTimeout(giveUp, stuckMs)
    else settle(abandoned)
  }
  signal.addEventListener('abort', cancel, { once: true })
  try {
    queue.push(waiting)
    startNext()
    const reply = await promise
    signal.throwIfAborted()
    if (reply.ok) return reply.result
    if (reply.blame === 'cache') throw new DamagedTreeError(reply.message)
    const { message, blame, code } = reply
    throw new TreeJobError({ message, blame, code })
  } finally {
    signal.removeEventListener('abort', cancel)
    clearTimeout(stuck)
  }
}

/** Those behind the current job must not wait for what may never end. A thread ends only when the system lets go of it. */
function giveUp(): void {
  endWorker()
  finish(abandoned)
}

/** Starts the worker for a job that is about to come: that takes about as long as asking a source whether it has changed. */
export function warmTreeThread(): void {
  if (worker) return
  worker = startWorker()
  worker.unref()
  rest()
}

function startNext(): void {
  if (current) return
  current = queue.shift()
  while (current && Atomics.load(current.request.cancelled, 0) !== 0) current = queue.shift()
  if (!current) {
    rest()
    return
  }
  clearTimeout(idleTimer)
  worker ??= startWorker()
  // A job keeps the process alive, an idle worker does not.
  worker.ref()
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  worker.postMessage(current.request)
}

function startWorker(): Worker {
  const started = new Worker(program, { name: 'trees' })
  let failure = 'it ended in the middle of a job'
  started.on('message', (reply: TreeReply) => {
    if (worker === started) finish(reply)
  })
  started.on('error', error => {
    failure = describeError(error)
  })
  started.on('exit', () => {
    if (worker !== started) return
    worker = undefined
    const message = `The thread that writes files failed: ${failure}`
    if (current) finish({ ok: false, message, blame: 'host', code: undefined })
  })
  return started
}

function finish(reply: TreeReply): void {
  const done = current
  current = undefined
  worker?.unref()
  done?.settle(reply)
  startNext()
}

function rest(): void {
  clearTimeout(idleTimer)
  idleTimer = setTimeout(endWorker, idleMs).unref()
}

function endWorker(): void {
  const old = worker
  worker = undefined
  old?.unref()
  // Nothing waits for it any more: its end needs no watching.
  void old?.terminate()
}
