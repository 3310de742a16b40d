// What OpenSSH's known_hosts files say of a host's key (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").

import { createHmac } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { errorCode } from '../errors.ts'

export interface KnownKey {
  /** Such as `ssh-ed25519`. */
  readonly type: string
  readonly base64: string
  readonly isRevoked: boolean
}

/** Of this machine and of the user; a file that is not there knows nobody. */
export async function readKnownKeys(home: string, host: string, port: number): Promise<readonly KnownKey[]> {
  const files = [join(home, '.ssh/known_hosts'), '/etc/ssh/ssh_known_hosts']
  const texts = await Promise.all(
    files.map(file =>
      readFile(file, 'utf8').catch((error: unknown) => {
        if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR') return ''
        throw error
      }),
    ),
  )
  return findKnownKeys(texts.join('\n'), host, port)
}

/** Authorities (`@cert-authority`) are left out: certificates of hosts are not understood here. */
export function findKnownKeys(text: string, host: string, port: number): readonly KnownKey[] {
  const name = port === 22 ? host : `[${host}]:${port}`
  return text.split(/\r?\n/).flatMap(line => {
    const fields = line.trim().split(/\s+/)
    const marker = fields[0]?.startsWith('@') ? fields.shift() : undefined
    const [names, type, base64] = fields
    if (!names || !type || !base64 || names.startsWith('#') || marker === '@cert-authority') return []
    return isMeant(names, name) ? [{ type, base64, isRevoked: marker === '@revoked' }] : []
  })
}

/** A list with `*`, `?` and `!`, or one hashed name. */
function isMeant(names: string, name: string): boolean {
  if (names.startsWith('|1|')) {
    const [, , salt = '', hash = ''] = names.split('|')
    return createHmac('sha1', Buffer.from(salt, 'base64')).update(name).digest('base64') === hash
  }
  const patterns = names.split(',')
  if (patterns.some(pattern => pattern.startsWith('!') && matches(pattern.slice(1), name))) return false
  return patterns.some(pattern => matches(pattern, name))
}

function matches(pattern: string, name: string): boolean {
  const source = pattern
    .toLowerCase()
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.')
  return new RegExp(`^${source}$`).test(name.toLowerCase())
}
