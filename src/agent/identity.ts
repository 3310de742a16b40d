// Who this agent is, in 8 hex digits that every claim carries: so claims, containers and Jobs can be found and told
// from another agent's even when the journal is lost.

import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'

export interface Identity {
  readonly name: string
  /** First 8 hex digits of the SHA-256 of the name. */
  readonly prefix: string
}

/** `name` as configured, else the one made once and kept in the state folder. */
export function readIdentity(stateDirectory: string, name: string | undefined): Identity {
  const known = name ?? keptName(join(stateDirectory, 'identity'))
  return { name: known, prefix: createHash('sha256').update(known).digest('hex').slice(0, 8) }
}

function keptName(file: string): string {
  if (existsSync(file)) {
    const kept = readFileSync(file, 'utf8').trim()
    if (kept !== '') return kept
  }
  const name = `${hostname()}-${randomBytes(4).toString('hex')}`
  writeFileSync(`${file}.new`, `${name}\n`, { mode: 0o600 })
  renameSync(`${file}.new`, file)
  return name
}

/** A fresh UUID (version 4 in form) for one claim: the identity's prefix, the rest random. */
export function newTransitionId(identity: Identity): string {
  return identity.prefix + randomUUID().slice(8)
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

export function isOurs(identity: Identity, transitionId: string | null | undefined): boolean {
  return transitionId?.startsWith(identity.prefix) ?? false
}

/** The last 8 hex digits of a claim's transition id: names one try to run a flow run. */
export function attemptOf(transitionId: string): string {
  return transitionId.slice(-8)
}
