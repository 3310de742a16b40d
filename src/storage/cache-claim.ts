// Who may fetch a source right now: one process, the others wait and then find it fetched.
//
//   <cache>/locks/<source>     symbolic link whose text is the owner's mark
//   <cache>/staging/<mark>/    what the owner is filling; both are touched while it lives

import { lstat, lutimes, mkdir, readlink, rename, symlink, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { Scope } from '../async/scope.ts'
import { sleep } from '../async/sleep.ts'
import { errorCode } from '../errors.ts'
import { lifeOf } from './owner.ts'
import { removeTree } from './workspace.ts'

/** Left by a process that cannot be asked (another container), and not touched for so long: dead. */
const abandonedMs = 120_000
const touchEveryMs = 15_000
const pollMs = 50

export interface CacheClaim extends AsyncDisposable {
  /** Empty, private, removed when the claim is disposed. */
  readonly staging: string
}

/** Waits until no other living process has it. */
export async function claimSource(
  { cache, source, mark }: { readonly cache: string; readonly source: string; readonly mark: string },
  signal: AbortSignal,
): Promise<CacheClaim> {
  const lock = join(cache, 'locks', source)
  const staging = join(cache, 'staging', mark)
  while (!(await tryLock({ cache, lock, mark }))) {
    await sleep(pollMs, signal)
    signal.throwIfAborted()
  }
  const unlock = async () => {
    if ((await readlink(lock).catch(() => undefined)) === mark) await unlink(lock).catch(ignoreMissing)
  }
  try {
    await mkdir(staging, { mode: 0o700 })
  } catch (error) {
    // A full disk may have had room for the lock, and everybody would wait for it as long as this process lives.
    await unlock()
    throw error
  }
  const scope = new Scope()
  scope.spawn(signal => keepTouching([lock, staging], signal))
  return {
    staging,
    async [Symbol.asyncDispose]() {
      scope.cancel()
      try {
        await scope.join()
        // What stays is for the sweep of a later process.
        await removeTree(staging).catch(() => undefined)
      } finally {
        await unlock()
      }
    },
  }
}

async function tryLock({ cache, lock, mark }: { cache: string; lock: string; mark: string }): Promise<boolean> {
  try {
    await symlink(mark, lock)
    return true
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw error
  }
  const holder = await readlink(lock).catch(() => undefined)
  if (holder !== undefined && (await isAbandoned(lock, holder)))
    await removeLock(lock, holder, join(cache, 'trash', mark))
  return false
}

/** Many may find the holder dead at once, and by now the lock may be another's: moved aside, looked at, put back if so. */
async function removeLock(lock: string, holder: string, aside: string): Promise<void> {
  await rename(lock, aside).catch(ignoreMissing)
  const moved = await readlink(aside).catch(() => undefined)
  if (moved !== undefined && moved !== holder) await symlink(moved, lock).catch(() => undefined)
  await unlink(aside).catch(ignoreMissing)
}

async function keepTouching(paths: readonly string[], signal: AbortSignal): Promise<void> {
  for (;;) {
    await sleep(touchEveryMs, signal)
    if (signal.aborted) return
    const now = new Date()
    for (const path of paths) await lutimes(path, now, now).catch(ignoreMissing)
  }
}

/** Whether the process that `mark` names, and that has left `path`, is gone. */
export async function isAbandoned(path: string, mark: string): Promise<boolean> {
  const life = lifeOf(mark)
  if (life !== 'unknown') return life === 'dead'
  const stat = await lstat(path).catch(() => undefined)
  return stat !== undefined && Date.now() - stat.mtimeMs > abandonedMs
}

function ignoreMissing(error: unknown): void {
  if (errorCode(error) !== 'ENOENT') throw error
}
