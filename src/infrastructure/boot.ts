// Which boot of the machine this is, for what is on disk may be of an earlier one.

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { platform } from 'node:process'

/** What another boot has left names processes that are gone. */
export function readBootId(): string {
  if (platform === 'linux') return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
  return execFileSync('sysctl', ['-n', 'kern.boottime'], { encoding: 'utf8' }).replaceAll(/[^0-9]+/g, '_')
}
