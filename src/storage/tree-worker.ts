// The worker thread for everything that touches thousands of files, so that the agent's event loop never stalls on them.
// Started, fed and ended by tree-thread.ts; one job after the other.

import { parentPort } from 'node:worker_threads'
import { describeError, errorCode } from '../errors.ts'
import { blameOf } from './blame.ts'
import { type CopyJob, copyTree } from './copy-tree.ts'
import { type PackJob, packTree } from './pack-tree.ts'
import { DamagedTreeError, type UnpackJob, unpackTree } from './unpack-tree.ts'
import type { TreeSize } from './walk-tree.ts'

export type TreeJob =
  | ({ readonly kind: 'copy' } & CopyJob)
  | ({ readonly kind: 'pack' } & PackJob)
  | ({ readonly kind: 'unpack' } & UnpackJob)

export interface TreeRequest {
  readonly job: TreeJob
  /** One 32-bit cell; not zero means "stop as soon as you can". */
  readonly cancelled: Int32Array
}

export interface TreeResult extends TreeSize {
  /** The name of the tree that was packed. */
  readonly id?: string
}

export type TreeReply =
  | { readonly ok: true; readonly result: TreeResult }
  | {
      readonly ok: false
      readonly message: string
      readonly blame: 'run' | 'host' | 'cache'
      /** Of a system error. */
      readonly code: string | undefined
    }

parentPort?.on('message', ({ job, cancelled }: TreeRequest) => {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  parentPort?.postMessage(perform(job, () => Atomics.load(cancelled, 0) !== 0))
})

function perform(job: TreeJob, isCancelled: () => boolean): TreeReply {
  try {
    return { ok: true, result: dispatch(job, isCancelled) }
  } catch (error) {
    return {
      ok: false,
      message: describeError(error),
      blame: error instanceof DamagedTreeError ? 'cache' : blameOf(error),
      code: errorCode(error),
    }
  }
}

function dispatch(job: TreeJob, isCancelled: () => boolean): TreeResult {
  switch (job.kind) {
    case 'copy':
      return copyTree(job, isCancelled)
    case 'pack':
      return packTree(job, isCancelled)
    case 'unpack':
      return unpackTree(job, isCancelled)
  }
}
