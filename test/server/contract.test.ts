import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { needs } from '../support/requires.ts'
import { conversation } from './conversation.ts'
import { converse, type Exchange } from './converse.ts'
import { differences } from './differences.ts'
import { startEmbedded } from './embedded.ts'
import { startReference } from './reference.ts'

async function readRecord(): Promise<readonly Exchange[]> {
  const exchanges: Exchange[] = JSON.parse(
    await readFile(new URL('recorded/prefect-2.20.25.json', import.meta.url), 'utf8'),
  )
  return exchanges
}

/** Steps whose answers are not the same. */
function compare(ours: readonly Exchange[], theirs: readonly Exchange[]): string[] {
  return ours.filter((exchange, at) => !isSame(exchange, theirs[at])).map(({ name }) => name)
}

function isSame(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other)
}

test('the embedded server answers as Prefect 2.20.25 was recorded to answer', async t => {
  await using server = await startEmbedded({ services: false })
  const ours = await converse(server.apiUrl, conversation)
  const theirs = await readRecord()
  assert.deepEqual(
    ours.map(({ name }) => name),
    theirs.map(({ name }) => name),
    'the record is older than the conversation: run node test/server/record.ts',
  )
  for (const [at, exchange] of ours.entries()) {
    if (!(exchange.name in differences)) assert.deepEqual(exchange, theirs[at], exchange.name)
  }
  t.diagnostic(`${ours.length} answers compared, ${Object.keys(differences).length} known differences`)
  assert.deepEqual(compare(ours, theirs), Object.keys(differences), 'differences.ts names exactly those that there are')
})

test('Prefect 2.20.25 still answers as it was recorded', needs('prefect2'), async () => {
  await using server = await startReference()
  const theirs = await converse(server.apiUrl, conversation)
  const record = await readRecord()
  for (const [at, exchange] of theirs.entries()) assert.deepEqual(exchange, record[at], exchange.name)
})
