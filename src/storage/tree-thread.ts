// The owner of the tree worker: starts it at the first job, gives it one job at a time, ends it when it has been idle, so
// that a resting agent does not pay the 10 MiB of a thread.

import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import { describeError } from '../errors.ts'
import { StorageError } from './storage.ts'
import type { TreeJob, TreeReply, TreeRequest, TreeResult } from './tree-worker.ts'
import { DamagedTreeError } from './unpack-tree.ts'

const idleMs = 5_000
// `.ts` in a checkout, `.js` in the package.
const program = new URL(`./tree-worker${extname(import.meta.filename)}`, import.meta.url)

interface Waiting {
  readonly request: TreeRequest
  readonly settle: (reply: TreeReply) => void
}

let worker: Worker | undefined
let current: Waiting | undefined
let idleTimer: NodeJS.Timeout | undefined
const queue: Waiting[] = []

/**
 * Does one job in the worker. Rejects with a StorageError, with a DamagedTreeError, or with the signal's reason when it is
 * aborted; then nothing of the job is running any more.
 */
export async function runTreeJob(job: TreeJob, signal: AbortSignal): Promise<TreeResult> {
  signal.throwIfAborted()
  const cancelled = new Int32Array(new SharedArrayBuffer(4))
  const cancel = () => Atomics.store(cancelled, 0, 1)
  signal.addEventListener('abort', cancel, { once: true })
  try {
    const reply = await new Promise<TreeReply>(settle => {
      queue.push({ request: { job, cancelled }, settle })
      startNext()
    })
    signal.throwIfAborted()
    if (reply.ok) return reply.result
    if (reply.blame === 'cache') throw new DamagedTreeError(reply.message)
    throw new StorageError(reply.message, { blame: reply.blame })
  } finally {
    signal.removeEventListener('abort', cancel)
  }
}

function startNext(): void {
  if (current) return
  current = queue.shift()
  if (!current) {
    idleTimer = setTimeout(endWorker, idleMs).unref()
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
  started.on('message', (reply: TreeReply) => finish(reply))
  started.on('error', error => {
    failure = describeError(error)
  })
  started.on('exit', () => {
    if (worker !== started) return
    worker = undefined
    if (current) finish({ ok: false, message: `The thread that writes files failed: ${failure}`, blame: 'host' })
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

function endWorker(): void {
  const idle = worker
  worker = undefined
  // Nothing waits for it and it has no job: its end needs no watching.
  void idle?.terminate()
}
