// The seam between one flow run and the thing that it runs in.
//
// In: a RunSpec, all that has been decided about what to start. Out: a Handle to what was started, later an Exit.
// Every driver (process, docker-container, kubernetes-job) implements this interface and passes the same contract suite.

/** Names one try to run a flow run. `attempt` is the last 8 hex digits of `transitionId`, which is the claim's. */
export interface Attempt {
  readonly flowRunId: string
  readonly attempt: string
  readonly transitionId: string
}

/** What exactly is to be started. It holds secrets (env), so it is never logged and never written to the journal. */
export interface RunSpec extends Attempt {
  /** Prefect's name for the infrastructure: the block's, else the flow run's. Not unique. */
  readonly name: string
  /** The infrastructure block's fields after overrides, as the server sent them; each driver reads them by its schema. */
  readonly settings: Readonly<Record<string, unknown>>
  /** Argument vector, never empty, never given to a shell. */
  readonly command: readonly Value[]
  /** Variables of the run. For a process they lie on top of the agent's own environment. */
  readonly env: Readonly<Record<string, Value>>
  /** Names that must not be set in the run, even if the agent or the image has them (a `null` in the block). */
  readonly unsetEnv: readonly string[]
  readonly labels: Readonly<Record<string, string>>
  /** Directory on this machine with the fetched flow code, or undefined when there is none to bring along. */
  readonly workspace: string | undefined
  /** Where in it the run begins: its current directory and RIGEL_WORKSPACE; '' or undefined is the top. */
  readonly startFolder?: string | undefined
  /** How the code in `workspace` came, for drivers that cannot bring so much along; undefined: from this machine's disk. */
  readonly recipe?: CodeRecipe | undefined
  /** Small texts by name, laid beside the run where only it can read them: its parameters, the engine shim. */
  readonly files: Readonly<Record<string, string>>
}

/** What `rigel fetch` needs to fetch a workspace once more. Holds secrets. */
export interface CodeRecipe {
  readonly from:
    | {
        readonly kind: 'block'
        readonly slug: string
        readonly data: Readonly<Record<string, unknown>>
        /** Within the block's storage; undefined: all of it. */
        readonly path: string | undefined
      }
    | { readonly kind: 'steps'; readonly steps: readonly unknown[] }
}

/** A text, or a place that only the driver can name: a file of the run's `files`, or one below the run's start folder. */
export type Value = string | { readonly in: 'files' | 'workspace'; readonly path: string }

/** Puts a value into words, given where this infrastructure has the two folders. */
export function resolveValue(value: Value, folders: { readonly files: string; readonly workspace: string }): string {
  if (typeof value === 'string') return value
  return value.path === '' ? folders[value.in] : `${folders[value.in]}/${value.path}`
}

/** The run's start folder, given where this infrastructure has its copy of the workspace. */
export function startIn(workspace: string, { startFolder = '' }: Pick<RunSpec, 'startFolder'>): string {
  return startFolder === '' ? workspace : `${workspace}/${startFolder}`
}

/** Points to started infrastructure; plain data, kept in the journal. */
export interface Handle extends Attempt {
  /** Prefect's block slug: `process`, `docker-container`, `kubernetes-job`. */
  readonly type: string
  /** The `infrastructure_pid` in Prefect's own text form, for example `host:4711`. */
  readonly identifier: string
}

/** How infrastructure ended. */
export type Exit = Exited | Vanished

export interface Exited {
  readonly kind: 'exited'
  /** 0 to 255; undefined when it was ended by a signal. */
  readonly statusCode?: number | undefined
  /** Signal name such as `SIGKILL`, if one ended it. */
  readonly signal?: string | undefined
  /** What is known beyond the code, for people: "out of memory", "code 137 may also be …". */
  readonly reason?: string | undefined
  /** The last lines of output, oldest first; at most 20. */
  readonly outputTail: readonly string[]
}

/** It is gone, and how it ended cannot be known any more. */
export interface Vanished {
  readonly kind: 'vanished'
  readonly reason: string
  readonly outputTail: readonly string[]
}

/**
 * Takes complete lines of output, in order, without line ends; longer ones arrive split, never dropped.
 * The lines count as shipped, and are not offered again after a restart of the agent, when it returns.
 */
export type OutputSink = (lines: readonly string[]) => void | Promise<void>

export interface Infrastructure {
  /** Starts it and returns once it exists. Safe to repeat for one attempt: what exists already is adopted. */
  submit(spec: RunSpec, signal: AbortSignal): Promise<Handle>
  /** Resolves when it has ended. The signal means "stop looking", never "stop it"; then it rejects with the reason. */
  wait(handle: Handle, output: OutputSink, signal: AbortSignal): Promise<Exit>
  /** Asks it to end, waits `graceSeconds`, then forces it. Returns when nothing of it is left. Safe to repeat. */
  kill(handle: Handle, graceSeconds: number, signal: AbortSignal): Promise<void>
  /**
   * Finds what an earlier life of the agent has started, living or ended.
   * Undefined is a promise: this submission has started nothing and will not do so later; `submit` may be called again.
   */
  reattach(attempt: Attempt, handle: Handle | undefined, signal: AbortSignal): Promise<Handle | undefined>
  /** Lets go of what has ended and whose exit is on record: removes what the settings do not ask to keep. */
  release(handle: Handle, signal: AbortSignal): Promise<void>
  /**
   * Clears away what has ended and is not to be kept any longer, found by labels; drivers that leave nothing behind lack
   * it. Gives what was, or with `dryRun` would be, removed, oldest first. What runs and what others own is never touched.
   * Rejects with an InfrastructureError when the engine or cluster cannot be asked.
   */
  collect?(request: CollectRequest, signal: AbortSignal): Promise<readonly Collectable[]>
  [Symbol.asyncDispose]?(): PromiseLike<void>
}

/** How many of the newest are kept, and for how long. */
export interface KeepRule {
  readonly keep: number
  readonly maxAgeSeconds: number
}

/** What of the past is kept: finished containers and Jobs, and images that were pulled for runs (undefined: all of them). */
export interface CleanupRules {
  readonly finished: KeepRule
  readonly images: KeepRule | undefined
}

export interface CollectRequest extends CleanupRules {
  /** First 8 hex digits of the agent's transition ids: only what bears them is looked at. */
  readonly agentPrefix: string
  /**
   * True for runs that the journal still holds, whose exit may not have been read yet. Asked after the engine was, for
   * a run is in the journal before anything of it exists.
   */
  readonly isHeld: (flowRunId: string) => boolean
  readonly dryRun: boolean
}

/** One thing that was cleared away. */
export interface Collectable {
  /** The engine's own word: `container`, `image`, `job`. */
  readonly kind: string
  readonly name: string
  /** Undefined for what belongs to no single run. */
  readonly flowRunId: string | undefined
  /** When it ended, or was last used. */
  readonly since: Date
}

/**
 * It could not be started. `blame` decides what happens to the run: `run` (wrong image, path, right, setting) ends it as
 * Crashed; `host` (disk, memory, engine down) gives it back for later, and the agent claims nothing until it heals.
 */
export class InfrastructureError extends Error {
  readonly blame: 'run' | 'host'

  constructor(message: string, options: { blame: 'run' | 'host'; cause?: unknown }) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.name = 'InfrastructureError'
    this.blame = options.blame
  }
}
