// The process driver keeps the contract, under each shell that may be a machine's /bin/sh.

import { existsSync } from 'node:fs'
import { mkdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { makeDirectory } from '../support/directory.ts'
import { testContract } from './contract.ts'
import { makeProcessSubject } from './process-subject.ts'

testContract('process', { skip: false, makeSubject: makeProcessSubject, timeoutMs: 20_000, concurrency: 4 })

for (const [name, program] of [
  ['bash', '/bin/bash'],
  ['busybox', '/bin/busybox'],
] as const) {
  testContract(`process under ${name}`, {
    skip: existsSync(program) ? false : `needs ${program} (package ${name})`,
    timeoutMs: 20_000,
    concurrency: 4,
    makeSubject: async () => {
      // Both decide by their own name what they are.
      const directory = await makeDirectory()
      const bin = join(directory.path, 'bin')
      await mkdir(bin)
      await symlink(program, join(bin, 'sh'))
      const subject = await makeProcessSubject({ shell: join(bin, 'sh') })
      return {
        ...subject,
        [Symbol.asyncDispose]: async () => {
          await subject[Symbol.asyncDispose]()
          await directory[Symbol.asyncDispose]()
        },
      }
    },
  })
}
