// Runs flow runs as processes on this machine, each under a supervisor of its own that outlives the agent.
//
// In: RunSpecs whose folder `<runsDirectory>/<flow run id>` exists. Out: Handles `host:pid` and Exits.
// All that is known of a run lies in that folder's `process/`; this object holds nothing that a restart would lose.
// docs/process.md tells the whole story.

import { hostname as ownHostname } from 'node:os'
import type { Logger } from '../logger.ts'
import { readBootId } from './boot.ts'
import type { Attempt, Exit, Handle, Infrastructure, OutputSink, RunSpec } from './infrastructure.ts'
import { resolveValue } from './infrastructure.ts'
import { Caretaker } from './process-caretaker.ts'
import { checkWorkingDirectory, findExecutable } from './process-command.ts'
import { buildEnvironment } from './process-environment.ts'
import { killRun } from './process-kill.ts'
import { launch, prepareFolder } from './process-launch.ts'
import { findRecord, inSubmission, makeFolder, type ProcessRecord, type Submission } from './process-record.ts'
import { attemptMarks, Scanner } from './process-scan.ts'
import { readProcessSettings } from './process-settings.ts'
import { findStarted, type StartAnswer, submitOnce } from './process-submit.ts'
import { readPidNamespace } from './process-table.ts'
import { Clock, type Here, watchRun, whyElsewhere } from './process-watch.ts'

export interface ProcessOptions {
  /** Holds one folder per run, 0700, on the disk of the journal, which makes and removes them. */
  readonly runsDirectory: string
  readonly logger: Logger
  /** Bytes that one run's output file may hold. */
  readonly outputCapBytes: number
  /** The agent's own environment. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** What of it a run may see. */
  readonly inheritEnv: 'all' | readonly string[]
  /** First part of the identifier; default this machine's name. */
  readonly hostname?: string
  /** POSIX shell of the supervisor; default /bin/sh. */
  readonly shell?: string
  /** How often output files are looked at when no agent is left; default 60. */
  readonly caretakerSeconds?: number
}

export function createProcessInfrastructure(options: ProcessOptions): Infrastructure {
  return new ProcessInfrastructure(options)
}

class ProcessInfrastructure implements Infrastructure {
  readonly #options: ProcessOptions
  readonly #hostname: string
  readonly #here: Here
  readonly #clock: Clock
  readonly #caretaker: Caretaker
  readonly #scanner = new Scanner()

  constructor(options: ProcessOptions) {
    this.#options = options
    this.#hostname = options.hostname ?? ownHostname()
    const { runsDirectory, outputCapBytes, environment, shell = '/bin/sh', logger } = options
    // Above the cap at which a living agent acts, so that the two never empty a file together.
    const capBytes = 2 * outputCapBytes
    const pace = options.caretakerSeconds === undefined ? {} : { lookEverySeconds: options.caretakerSeconds }
    this.#caretaker = new Caretaker({ runsDirectory, capBytes, shell, path: environment.PATH, logger, ...pace })
    this.#clock = new Clock(() => this.#caretaker.start())
    this.#here = { bootId: readBootId(), pidNamespace: readPidNamespace() }
  }

  async submit(spec: RunSpec, signal: AbortSignal): Promise<Handle> {
    const { runsDirectory } = this.#options
    const start = (submission: Submission): Promise<StartAnswer> => this.#start(spec, submission)
    return this.#handleOf(spec, await submitOnce({ runsDirectory, attempt: spec, start }, signal))
  }

  async wait(handle: Handle, output: OutputSink, signal: AbortSignal): Promise<Exit> {
    const record = findRecord(this.#options.runsDirectory, handle)
    if (!record) return { kind: 'vanished', reason: 'its records on this machine are gone', outputTail: [] }
    const { outputCapBytes: capBytes } = this.#options
    const { keeper } = this.#caretaker
    return await watchRun({ record, here: this.#here, clock: this.#clock, capBytes, keeper, sink: output }, signal)
  }

  async kill(handle: Handle, graceSeconds: number, signal: AbortSignal): Promise<void> {
    const record = findRecord(this.#options.runsDirectory, handle)
    // Where its pids mean nothing, nothing of it is left, and nobody may be signalled.
    if (!record || whyElsewhere(record, this.#here)) return
    await killRun({ record, attempt: handle, graceSeconds, scanner: this.#scanner }, signal)
    this.#clock.wake(record.submission.folder)
  }

  async reattach(attempt: Attempt, handle: Handle | undefined, signal: AbortSignal): Promise<Handle | undefined> {
    const record = await findStarted(this.#options.runsDirectory, attempt, signal)
    // A handle without a record: it was started, so "nothing was" would be wrong. `wait` says that it vanished.
    return record ? this.#handleOf(attempt, record) : handle
  }

  /** All that is left is on disk, in the run's folder, which goes with its journal record. */
  async release(_handle: Handle, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
  }

  #handleOf({ flowRunId, attempt, transitionId }: Attempt, { run }: ProcessRecord): Handle {
    return { type: 'process', identifier: `${this.#hostname}:${run.pid}`, flowRunId, attempt, transitionId }
  }

  async #start(spec: RunSpec, submission: Submission): Promise<StartAnswer> {
    const { environment, inheritEnv, shell = '/bin/sh', logger } = this.#options
    const settings = readProcessSettings(spec.settings)
    prepareFolder(submission, spec.files, this.#caretaker.keeper)
    const cwd = settings.working_dir ?? spec.workspace ?? makeCurrentDirectory(submission)
    if (settings.working_dir !== null) checkWorkingDirectory(cwd)

    const folders = { files: inSubmission.files(submission.folder), workspace: spec.workspace ?? cwd }
    const command = spec.command.map(value => resolveValue(value, folders))
    const runEnv = {
      ...Object.fromEntries(Object.entries(spec.env).map(([name, value]) => [name, resolveValue(value, folders)])),
      ...(spec.workspace === undefined ? {} : { RIGEL_WORKSPACE: spec.workspace }),
      ...attemptMarks(spec),
    }
    const env = buildEnvironment({ agent: environment, inheritEnv, run: runEnv, unsetEnv: spec.unsetEnv })
    const executable = findExecutable(command[0] ?? '', { cwd, path: env.PATH })

    const isStreamed = settings.stream_output
    const { child, started } = launch({
      submission,
      ...this.#here,
      shell,
      isStreamed,
      command,
      executable,
      cwd,
      env,
      runEnv,
    })
    child.once('exit', () => this.#clock.wake(submission.folder))
    const answer = await started
    logger.debug({ flow_run_id: spec.flowRunId, pid: child.pid, cwd, answer }, 'supervisor started')
    return answer
  }
}

/** For a run without code and working_dir: an empty folder that goes with the run, as Prefect's temporary one does. */
function makeCurrentDirectory({ folder }: Submission): string {
  const cwd = inSubmission.cwd(folder)
  makeFolder(cwd)
  return cwd
}
