// Can this agent let go of its runs and leave them running? Not where its own end ends everything around it.
//
// `readHostFacts` looks at this machine (Linux), `decideDetach` is pure. An agent that cannot detach drains, ends what is
// left and reports it before it exits. In doubt it cannot: a run ended with a report is better than one that vanishes.

import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { promisify } from 'node:util'

export interface HostFacts {
  readonly pid: number
  /** Process ids and names of the agent's parents, the nearest first, up to process 1 or to where they cannot be seen. */
  readonly ancestors: readonly { readonly pid: number; readonly name: string }[]
  /** The name of process 1, as far as we see one. */
  readonly init: string | undefined
  readonly isContainer: boolean
  /** Set when a service manager has started this very process. */
  readonly service: { readonly unit: string | undefined; readonly killMode: string | undefined } | undefined
}

export type DetachDecision = { readonly canDetach: true } | { readonly canDetach: false; readonly reason: string }

/** Inits of containers that have one child and end with it, and shells that do the same. */
const oneChildInits = ['tini', 'docker-init', 'dumb-init', 'catatonit', 'bwrap', 'sh', 'bash', 'dash', 'ash', 'busybox']

export function decideDetach({ pid, ancestors, init, isContainer, service }: HostFacts): DetachDecision {
  if (pid === 1) return no('the agent is process 1, and its end ends everything in its container')
  const top = ancestors.at(-1)
  // A process whose parents are outside: the first process of a container that shares the namespace of others, or one
  // that was brought in from outside (`docker exec`).
  if (isContainer && top?.pid !== 1) return no('the agent was started from outside its container and ends with it')
  if (top?.pid === 1 && init !== undefined && oneChildInits.includes(init)) {
    return no(`process 1 is ${init}, which ends with the agent and takes everything in its container along`)
  }
  if (service) {
    const { unit = 'of unknown name', killMode } = service
    if (killMode === undefined) return no(`the agent is the service ${unit}, and its KillMode could not be read`)
    if (killMode !== 'process' && killMode !== 'none') {
      return no(`the service ${unit} has KillMode=${killMode}, which ends the runs as well; see docs/service.md`)
    }
  }
  return { canDetach: true }
}

function no(reason: string): DetachDecision {
  return { canDetach: false, reason }
}

export interface HostInput {
  /** Our environment, for what service managers and containers put into it. */
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly pid: number
}

/** Looks at /proc and asks systemctl, which is given three seconds. What cannot be seen is left out. */
export async function readHostFacts({ environment, pid }: HostInput, signal: AbortSignal): Promise<HostFacts> {
  const ancestors = readAncestors(pid)
  const isService = wasStartedByManager(environment, pid, ancestors)
  return {
    pid,
    ancestors,
    init: readName(1),
    isContainer:
      existsSync('/.dockerenv') ||
      existsSync('/run/.containerenv') ||
      Boolean(environment.KUBERNETES_SERVICE_HOST || environment.container),
    service: isService ? await readService(environment, signal) : undefined,
  }
}

/**
 * INVOCATION_ID alone says little: a terminal that was started by a user's service manager has one too. systemd 248 and
 * later name the process that they started; before, that is a child of systemd.
 */
function wasStartedByManager(
  environment: HostInput['environment'],
  pid: number,
  ancestors: HostFacts['ancestors'],
): boolean {
  if (!environment.INVOCATION_ID) return false
  const parent = ancestors[0]
  const started = Number(environment.SYSTEMD_EXEC_PID)
  return started > 0 ? started === pid || started === parent?.pid : parent?.name === 'systemd'
}

async function readService(
  environment: HostInput['environment'],
  signal: AbortSignal,
): Promise<NonNullable<HostFacts['service']>> {
  const path = readControlGroup(readText('/proc/self/cgroup') ?? '')
  if (!path) return { unit: undefined, killMode: undefined }
  const { unit, isUser } = path
  const words = [...(isUser ? ['--user'] : []), 'show', '--property=KillMode', '--value', '--', unit]
  const options = { env: { ...environment }, signal, timeout: 3_000, killSignal: 'SIGKILL' } as const
  const output = await promisify(execFile)('systemctl', words, options).catch(() => undefined)
  return { unit, killMode: output?.stdout.trim() || undefined }
}

/** The unit that a control group path of systemd belongs to, and whether a user's own manager has it. */
export function readControlGroup(text: string): { readonly unit: string; readonly isUser: boolean } | undefined {
  const paths = text.split('\n').flatMap(line => /^\d+:(?:name=systemd)?:(\/.*)$/.exec(line)?.[1] ?? [])
  for (const path of paths) {
    const parts = path.split('/')
    // A service may have control groups of its own below its unit's.
    const unit = parts.findLast(part => /\.(service|scope)$/.test(part))
    if (unit?.endsWith('.service') && !/^user@\d+\.service$/.test(unit)) {
      return { unit, isUser: parts.some(part => /^user@\d+\.service$/.test(part)) }
    }
  }
  return undefined
}

function readAncestors(pid: number): HostFacts['ancestors'] {
  const ancestors: { pid: number; name: string }[] = []
  for (let at = readParent(pid); at !== undefined && at > 0 && ancestors.length < 64; at = readParent(at)) {
    ancestors.push({ pid: at, name: readName(at) ?? '' })
  }
  return ancestors
}

function readParent(pid: number): number | undefined {
  // The name stands in parentheses and may hold some itself; the parent is the second field after the last one.
  const fields = readText(`/proc/${pid}/stat`)?.split(') ').at(-1)?.split(' ')
  const parent = Number(fields?.[1])
  return Number.isInteger(parent) ? parent : undefined
}

function readName(pid: number): string | undefined {
  return readText(`/proc/${pid}/comm`)?.trim()
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
