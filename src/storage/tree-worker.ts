// The worker thread for everything that touches thousands of files, so that the agent's event loop never stalls on them.
// Started, fed and ended by tree-thread.ts; one job after the other.

import { parentPort } from 'node:worker_threads'
import { describeError } from '../errors.ts'
import { blameOf } from './blame.ts'
import { type CopyJob, copyTree, type TreeSize } from './copy-tree.ts'

export type TreeJob = { readonly kind: 'copy' } & CopyJob

export interface TreeRequest {
  readonly job: TreeJob
  /** One 32-bit cell; not zero means "stop as soon as you can". */
  readonly cancelled: Int32Array
}

export type TreeReply =
  | { readonly ok: true; readonly size: TreeSize }
  | { readonly ok: false; readonly message: string; readonly blame: 'run' | 'host' }

parentPort?.on('message', ({ job, cancelled }: TreeRequest) => {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  parentPort?.postMessage(perform(job, () => Atomics.load(cancelled, 0) !== 0))
})

function perform(job: TreeJob, isCancelled: () => boolean): TreeReply {
  try {
    return { ok: true, size: copyTree(job, isCancelled) }
  } catch (error) {
    return { ok: false, message: describeError(error), blame: blameOf(error) }
  }
}
