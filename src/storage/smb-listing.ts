// Reads what smbclient prints for a recursive `ls`.

import { hashBytes } from './manifest.ts'
import { smbError } from './smb-client.ts'
import { type Entry, TransientError } from './source.ts'
import { StorageError } from './storage.ts'

// `  <name, padded to 30 bytes><attributes, 7> <size, 8 or more>  <time, 24>`, in client/client.c of Samba.
const nameBytes = 30
const line = /^ {2}(.+)(.{7}) ( *\d+) {2}(\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4})$/s
/** What it says before it lists, and what it says last: without that, it was cut short. */
const opening = /^(Try "help" .*|Domain=.*|Anonymous login successful)$/
const closing = /^\t\t\d+ blocks of size \d+\. \d+ blocks available$/

/**
 * `text` is Latin-1, one character for each byte; `folder` is what was listed, with `/`. Throws for a line that it does not know.
 *
 * A name with line breaks in it looks like several lines, each of which may look sound. But then it names something that is
 * not there, or is there twice; a heading it cannot be, for smbclient refuses names with `\`.
 */
export function readListing(text: string, folder: string, isRecursive = true): readonly Entry[] {
  const entries: Entry[] = []
  const top = `\\${folder.replaceAll('/', '\\')}`
  const folders = new Set<string>()
  const selves = new Set<string>()
  let below = ''
  let isClosed = false
  for (const raw of text.split('\n')) {
    const shown = utf8(raw)
    if (raw.startsWith('NT_STATUS_') || /^\w.*NT_STATUS_/.test(raw)) throw smbError('Listing it', shown)
    if (raw === '' || (entries.length === 0 && opening.test(raw))) continue
    if (raw.startsWith('\\') && !isClosed) {
      below = belowTop(shown, top)
      // Each once, and after it was listed itself; a name that ends with blanks was read without them.
      if (!folders.delete(below))
        throw new StorageError(`smbclient lists "${below}", which is no folder that it has named`)
      continue
    }
    const fields = isClosed ? undefined : readLine(raw)
    if (fields === undefined) {
      isClosed = !isClosed && closing.test(raw)
      if (isClosed) continue
      throw new StorageError(
        `smbclient's listing has a line that cannot be understood: ${JSON.stringify(shown.slice(0, 200))}`,
      )
    }
    const name = utf8(fields.name)
    const path = below === '' ? name : `${below}/${name}`
    if (name === '.' || name === '..') {
      if (selves.has(path)) throw new StorageError(`There is a name in "${below}" that looks like "${name}"`)
      selves.add(path)
      continue
    }
    const { time, size } = fields
    if (fields.attributes.includes('D')) {
      entries.push({ kind: 'folder', path })
      folders.add(path)
    } else entries.push({ kind: 'file', path, size, validator: `${time}/${size}`, ref: path })
  }
  if (!isClosed) throw new TransientError('smbclient broke off in the middle of a listing')
  const [unlisted] = folders
  if (isRecursive && unlisted !== undefined)
    throw new StorageError(`smbclient names the folder "${unlisted}" and does not list it`)
  return entries
}

/** So often a folder may hold, line for line, what one above it holds. */
const mostAlike = 3

/** Hears a listing as it comes, for where a link leads back to a folder above it there is no end to wait for. */
export class CircleWatch {
  /** As in a heading. */
  #folder: string
  #lines: string[] = []
  #rest = ''
  readonly #contents = new Map<string, string>()

  constructor(folder: string) {
    this.#folder = folder === '' ? '' : `\\${folder.replaceAll('/', '\\')}`
  }

  /** Throws a StorageError that names a folder in the circle. */
  hear(chunk: Buffer): void {
    const lines = (this.#rest + chunk.toString('latin1')).split('\n')
    this.#rest = lines.pop() ?? ''
    for (const line of lines) {
      // Not `..`, which tells of another folder.
      if (line.startsWith('  ') && !line.startsWith('  .. ')) this.#lines.push(line)
      if (!line.startsWith('\\')) continue
      this.#compare()
      this.#folder = line
      this.#lines = []
    }
  }

  #compare(): void {
    const content = hashBytes(Buffer.from(this.#lines.toSorted().join('\n')))
    this.#contents.set(this.#folder, content)
    let alike = 0
    for (let above = this.#folder; above !== ''; ) {
      above = above.slice(0, above.lastIndexOf('\\'))
      if (this.#contents.get(above) === content) alike += 1
    }
    if (alike > mostAlike)
      throw new StorageError(`"${utf8(this.#folder)}" is in a circle of links: it holds what folders above it hold`)
  }
}

function readLine(raw: string): { name: string; attributes: string; size: number; time: string } | undefined {
  const [, , , padded = '', time = ''] = line.exec(raw) ?? []
  if (time === '') return undefined
  const digits = padded.trimStart()
  const head = raw.slice(2, raw.length - time.length - 2 - Math.max(8, digits.length) - 1)
  const name = head.slice(0, -7)
  return {
    // A longer name is not padded, so what blanks it ends with are its own.
    name: name.length > nameBytes ? name : name.replace(/ +$/, ''),
    attributes: head.slice(-7),
    size: Number(digits),
    time,
  }
}

function belowTop(header: string, top: string): string {
  const inside = top === '\\' ? header.slice(1) : header.slice(top.length + 1)
  if (!header.startsWith(top))
    throw new StorageError(`smbclient lists "${header}", which is not below what was asked for`)
  return inside.replaceAll('\\', '/')
}

function utf8(latin1: string): string {
  return Buffer.from(latin1, 'latin1').toString('utf8')
}
