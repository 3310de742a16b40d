// Who this agent is, in the first 18 characters of every claim's transition id.
//
//   name (8)   whose claims, containers and Jobs these are, also when the journal is lost; given by `--name`
//   folder (7) which state folder remembers the claim. It has one agent at a time, so a claim that it does not remember is
//              nobody's; of another folder's, only that one's agent can tell, be it lost or a second agent of the name.
//
// The rest is random.

import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'

export interface Identity {
  readonly name: string
  /** First 8 hex digits of the SHA-256 of the name. */
  readonly prefix: string
  /** The second and third group of a UUID (version 4), made once for the state folder. */
  readonly folder: string
}

/** `name` as configured, else the one made once and kept in the state folder, which must be there. */
export function readIdentity(stateDirectory: string, name: string | undefined): Identity {
  const known = name ?? readName(stateDirectory)
  const folder = keep(join(stateDirectory, 'folder'), () => randomUUID().slice(9, 18))
  return { name: known, prefix: prefixOf(known), folder }
}

/** The identity's prefix alone, which with a name needs no state folder. */
export function readPrefix(stateDirectory: string, name: string | undefined): string {
  return prefixOf(name ?? readName(stateDirectory))
}

function readName(stateDirectory: string): string {
  return keep(join(stateDirectory, 'identity'), () => `${hostname()}-${randomBytes(4).toString('hex')}`)
}

function prefixOf(name: string): string {
  return createHash('sha256').update(name).digest('hex').slice(0, 8)
}

/** What the file holds; made once. */
function keep(file: string, make: () => string): string {
  if (existsSync(file)) {
    const kept = readFileSync(file, 'utf8').trim()
    if (kept !== '') return kept
  }
  const made = make()
  writeFileSync(`${file}.new`, `${made}\n`, { mode: 0o600 })
  renameSync(`${file}.new`, file)
  return made
}

/** A fresh UUID (version 4 in form) for one claim. */
export function newTransitionId({ prefix, folder }: Identity): string {
  return `${prefix}-${folder}${randomUUID().slice(18)}`
}

/**
 * The transition id of a later proposal of the same claim. Made from the claim's, so that a proposal which is repeated
 * after its answer was lost, even in another life of the agent, is recognised by the server as the one it has had. It begins
 * with the identity's prefix, as the claim's does.
 */
export function followUpId(transitionId: string, what: 'running' | 'report'): string {
  const hex = createHash('sha256').update(`${transitionId} ${what}`).digest('hex')
  return [
    transitionId.slice(0, 8),
    hex.slice(8, 12),
    `4${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join('-')
}

/** A claim, or what followed it, of an agent of our name. */
export function bearsOurName({ prefix }: Identity, transitionId: string | null | undefined): boolean {
  return transitionId?.startsWith(prefix) ?? false
}

/** A claim that this state folder remembers, or nobody. */
export function isOurClaim({ prefix, folder }: Identity, transitionId: string | null | undefined): boolean {
  return transitionId?.startsWith(`${prefix}-${folder}-`) ?? false
}

/** The last 8 hex digits of a claim's transition id: names one try to run a flow run. */
export function attemptOf(transitionId: string): string {
  return transitionId.slice(-8)
}
