// What the journal does with the folders of runs that are over.

import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { Journal } from '../../src/agent/journal.ts'
import { createLogger } from '../../src/logger.ts'

const flowRunId = '3f2b8a1e-1111-4222-8333-444455556666'

/** As somebody whom the rights of a folder hold back, also where tests run as root. */
async function asUser(work: () => Promise<void>): Promise<void> {
  if (process.getuid?.() !== 0) return work()
  process.seteuid?.(65_534)
  try {
    await work()
  } finally {
    process.seteuid?.(0)
  }
}

test('the folder of a run that is over goes, though the run has left read-only folders in it', async () => {
  await asUser(async () => {
    const state = mkdtempSync(join(tmpdir(), 'rigel-journal-'))
    const logger = createLogger({ level: 'WARNING', pretty: true, destination: process.stderr })
    const journal = new Journal(state, logger)
    await journal.open()
    // As Go leaves its modules.
    const module = join(journal.directory(flowRunId), 'pkg', 'mod', 'x@v1')
    mkdirSync(module, { recursive: true })
    writeFileSync(join(module, 'x.go'), 'package x')
    chmodSync(module, 0o555)
    await journal.forget(flowRunId)
    assert.deepEqual(readdirSync(join(state, 'trash')), [])
    rmSync(state, { recursive: true })
  })
})
