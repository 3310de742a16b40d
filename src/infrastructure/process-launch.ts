// Starts one supervisor, and with it one run.
//
// In: what is to be started, all decided. Out: a promise that resolves when there is something to read: the record is
// written, or the supervisor has ended. What it says is read from disk, as a later life of the agent would read it.

import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execPath, platform } from 'node:process'
import { InfrastructureError } from './infrastructure.ts'
import { explainSpawnError } from './process-blame.ts'
import { splitEnvironment } from './process-environment.ts'
import { writePosition } from './process-output.ts'
import { inSubmission, makeFolder, type Submission } from './process-record.ts'
import type { StartAnswer } from './process-submit.ts'

const SUPERVISOR = join(import.meta.dirname, 'supervisor.sh')
/** Compiled it is a .js file. */
const EXEC = import.meta.filename.replace('process-launch', 'process-exec')
/** Longer than any exit line, so that it is written over blanks and needs no new block of the disk. */
const EXIT_BLANKS = `${' '.repeat(62)}\n`

export interface Launch {
  readonly submission: Submission
  readonly shell: string
  readonly bootId: string
  readonly pidNamespace: string
  readonly isStreamed: boolean
  readonly command: readonly string[]
  /** The file that `command` starts. */
  readonly executable: string
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
  /** The run's own part of `env`. */
  readonly runEnv: Readonly<Record<string, string>>
}

/** Lays out a submission's folder: 0700, its files 0600. */
export function prepareFolder({ folder }: Submission, files: Readonly<Record<string, string>>, keeper: string): void {
  if (Object.keys(files).length > 0) makeFolder(inSubmission.files(folder))
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(join(inSubmission.files(folder), name), text, { mode: 0o600, flag: 'wx' })
  }
  writeFileSync(inSubmission.exit(folder), EXIT_BLANKS, { mode: 0o600, flag: 'wx' })
  writePosition(folder, 0, keeper)
}

/**
 * `started` settles when the submission's folder has its answer. `child` is the supervisor; its end is a hint to look.
 * Throws, or rejects with, an InfrastructureError when the supervisor could not be started.
 */
export function launch(options: Launch): { readonly child: ChildProcess; readonly started: Promise<StartAnswer> } {
  const { folder } = options.submission
  const { plain, strange } = splitEnvironment(options.env, options.runEnv)
  let command = options.command
  if (Object.keys(strange).length > 0) {
    plain.RIGEL_STRANGE_ENVIRONMENT = JSON.stringify(strange)
    command = [execPath, '--disable-warning=ExperimentalWarning', EXEC, options.executable, ...command]
  }
  const output = openSync(inSubmission.output(folder), 'a', 0o600)
  try {
    const { bootId, pidNamespace, isStreamed } = options
    const words = [
      SUPERVISOR,
      folder,
      bootId,
      pidNamespace,
      isStreamed ? 'stream' : 'keep',
      ...ownSession(),
      ...command,
    ]
    const child = spawn(options.shell, words, {
      cwd: options.cwd,
      env: plain,
      detached: true,
      stdio: ['ignore', output, 'ignore', 'pipe'],
    })
    child.unref()
    return { child, started: waitForAnswer(child) }
  } catch (error) {
    throw explainSpawnError(error)
  } finally {
    closeSync(output)
  }
}

/** The command words that put what follows them into a session of its own, without a new pid. */
function ownSession(): readonly string[] {
  if (platform === 'darwin') return ['/usr/bin/perl', '-MPOSIX', '-e', 'setsid; exec { $ARGV[0] } @ARGV', '--']
  return [findSetsid()]
}

let setsid: string | undefined

function findSetsid(): string {
  setsid ??= ['/usr/bin/setsid', '/bin/setsid', '/usr/local/bin/setsid'].find(path => existsSync(path))
  if (setsid) return setsid
  throw new InfrastructureError('This machine has no setsid in /usr/bin or /bin (package util-linux or busybox)', {
    blame: 'host',
  })
}

/** The supervisor's exit code when the token was not to be had. */
const TOKEN_LOST = 75

function waitForAnswer(child: ChildProcess): Promise<StartAnswer> {
  return new Promise((resolve, reject) => {
    const pipe = child.stdio[3]
    const settle = (answer: StartAnswer): void => {
      pipe?.destroy()
      resolve(answer)
    }
    // A supervisor that cannot be started says so by 'error'; one that ends closes the pipe.
    child.once('error', error => reject(explainSpawnError(error)))
    child.once('exit', code => settle(code === TOKEN_LOST ? 'lost' : 'ended'))
    if (pipe && 'on' in pipe) {
      pipe.once('data', () => settle('started'))
    }
  })
}
