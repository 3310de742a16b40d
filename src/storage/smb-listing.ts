// Reads what smbclient prints for a recursive `ls`.

import { smbError } from './smb-client.ts'
import type { Entry } from './source.ts'
import { StorageError } from './storage.ts'

// `  <name, padded to 30 bytes><attributes, 7> <size, 8 or more>  <time, 24>`, in client/client.c of Samba.
const nameBytes = 30
const line = /^ {2}(.+)(.{7}) ( *\d+) {2}(\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4})$/s
const quiet = /^(|Try "help" .*|\t\t\d+ blocks of size .*|Domain=.*|Anonymous login successful)$/

/** `text` is Latin-1, one character for each byte; `folder` is what was listed, with `/`. Throws for a line that it does not know. */
export function readListing(text: string, folder: string): readonly Entry[] {
  const entries: Entry[] = []
  const top = `\\${folder.replaceAll('/', '\\')}`
  let below = ''
  for (const raw of text.split('\n')) {
    const shown = utf8(raw)
    if (raw.startsWith('NT_STATUS_') || /^\w.*NT_STATUS_/.test(raw)) throw smbError('Listing it', shown)
    if (raw.startsWith('\\')) {
      below = belowTop(shown, top)
      continue
    }
    const fields = readLine(raw)
    if (fields === undefined) {
      if (quiet.test(raw)) continue
      throw new StorageError(
        `smbclient's listing has a line that cannot be understood: ${JSON.stringify(shown.slice(0, 200))}`,
      )
    }
    const name = utf8(fields.name)
    if (name === '.' || name === '..') continue
    const path = below === '' ? name : `${below}/${name}`
    if (fields.attributes.includes('D')) entries.push({ kind: 'folder', path })
    else entries.push({ kind: 'file', path, size: fields.size, validator: `${fields.time}/${fields.size}`, ref: path })
  }
  return entries
}

function readLine(raw: string): { name: string; attributes: string; size: number; time: string } | undefined {
  const [, , , padded = '', time = ''] = line.exec(raw) ?? []
  if (time === '') return undefined
  const digits = padded.trimStart()
  const head = raw.slice(2, raw.length - time.length - 2 - Math.max(8, digits.length) - 1)
  const name = head.slice(0, -7)
  return {
    // A longer name is not padded, so what blanks it ends with are its own.
    name: name.length > nameBytes ? name : name.trimEnd(),
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
