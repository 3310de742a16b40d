// Reads listings of FTP servers: MLSD (RFC 3659), which is made for programs, else whatever LIST looks like.

import type { Entry } from './source.ts'
import { StorageError } from './storage.ts'

/** `below` is the path of the folder that was listed, from the top; `at` its path on the server, without a slash at its end. */
export function readMlsd(text: string, below: string, at: string): readonly Entry[] {
  return text.split(/\r?\n/).flatMap((line): Entry[] => {
    const blank = line.indexOf(' ')
    if (line === '') return []
    // A name with a line break in it goes on in a line of its own.
    if (blank < 0) throw new StorageError(`The listing has a line that is no entry: ${JSON.stringify(line)}`)
    const name = line.slice(blank + 1)
    const facts = new Map(
      line
        .slice(0, blank)
        .split(';')
        .map(fact => [fact.split('=')[0]?.toLowerCase(), fact.slice(fact.indexOf('=') + 1)]),
    )
    const type = facts.get('type')?.toLowerCase() ?? ''
    if (type === 'cdir' || type === 'pdir') return []
    const path = below === '' ? name : `${below}/${name}`
    if (type === 'dir') return [{ kind: 'folder', path }]
    if (type !== 'file') throw new StorageError(`"${path}" is neither a file nor a folder (${type || 'of no type'})`)
    const modified = facts.get('modify')
    const size = facts.has('size') ? Number(facts.get('size')) : undefined
    const validator =
      modified === undefined || size === undefined ? undefined : `${modified}/${size}/${facts.get('unique') ?? ''}`
    return [{ kind: 'file', path, size, validator, ref: `${at}/${name}` }]
  })
}

/** Times of a LIST are in minutes or days: no validator. */
export async function readList(text: string, below: string, at: string): Promise<readonly Entry[]> {
  const { parseList } = await import('basic-ftp')
  return parseList(text).flatMap((info): Entry[] => {
    if (info.name === '.' || info.name === '..') return []
    const path = below === '' ? info.name : `${below}/${info.name}`
    if (info.isDirectory) return [{ kind: 'folder', path }]
    if (info.isSymbolicLink) return [{ kind: 'link', path, target: info.link ?? '' }]
    return [{ kind: 'file', path, size: info.size, validator: undefined, ref: `${at}/${info.name}` }]
  })
}
