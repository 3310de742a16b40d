// Finds the numeric user that a container will run as, so that files are sent to it as its own.
//
// Docker itself looks a name up in the image's /etc/passwd at start; the archive call would look on the engine's host.

import { Parser } from 'tar'
import type { Owner } from './docker-archive.ts'
import type { DockerEngine } from './docker-engine.ts'

/** `user` is what inspect shows: '', `name`, `uid`, and each with `:group`. Root where a name is not to be found. */
export async function findOwner(engine: DockerEngine, id: string, user: string, signal: AbortSignal): Promise<Owner> {
  const [name = '', group] = user.split(':')
  if (name === '' || ((name === '0' || name === 'root') && group === undefined)) return { uid: 0, gid: 0 }
  const isNumeric = /^\d+$/.test(name) && group !== undefined && /^\d+$/.test(group)
  const passwd = isNumeric ? '' : await readTextFile(engine, id, '/etc/passwd', signal)
  const groups = group === undefined || /^\d+$/.test(group) ? '' : await readTextFile(engine, id, '/etc/group', signal)
  return readOwner(user, passwd, groups)
}

/** Pure part, by the rules of runc's user lookup. */
export function readOwner(user: string, passwd: string, groups: string): Owner {
  const [name = '', group] = user.split(':')
  const entry = rows(passwd).find(row => row[0] === name || (/^\d+$/.test(name) && row[2] === name))
  const uid = /^\d+$/.test(name) ? Number(name) : Number(entry?.[2] ?? 0)
  if (group === undefined) return { uid, gid: Number(entry?.[3] ?? 0) }
  const found = rows(groups).find(row => row[0] === group)
  return { uid, gid: /^\d+$/.test(group) ? Number(group) : Number(found?.[2] ?? 0) }
}

function rows(text: string): string[][] {
  return text.split('\n').map(line => line.split(':'))
}

async function readTextFile(engine: DockerEngine, id: string, path: string, signal: AbortSignal): Promise<string> {
  const archive = await engine.download(id, path, signal)
  if (!archive) return ''
  const chunks: Buffer[] = []
  const parser = new Parser({
    onReadEntry: entry => {
      entry.on('data', chunk => chunks.push(chunk))
    },
  })
  for await (const chunk of archive) parser.write(chunk)
  parser.end()
  return Buffer.concat(chunks).toString('utf8')
}
