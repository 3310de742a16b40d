import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { Turns } from '../../src/agent/turns.ts'
import { ApiError } from '../../src/prefect/errors.ts'

const never = new AbortController().signal
const refusal = { kind: 'status', method: 'POST', path: '/', status: 503, mayHaveHappened: false } as const

function refuseMany(underWay: number): void {
  if (underWay > 1) throw new ApiError('busy', refusal)
}

/** Sends calls to a server that is told how many it has before it, and tells how many these were, one call after the other. */
async function loadServer(turns: Turns, calls: number, answer: (underWay: number) => void): Promise<readonly number[]> {
  const seen: number[] = []
  let underWay = 0
  const call = async (): Promise<void> => {
    seen.push(++underWay)
    const now = underWay
    await delay(2)
    underWay--
    answer(now)
  }
  const take = () => turns.take('claim', call, never).catch(() => undefined)
  await Promise.all(Array.from({ length: calls }, take))
  return seen
}

describe('calls of the API that take turns', () => {
  test('are never more than four at once, however good the answers are', async () => {
    const seen = await loadServer(new Turns(), 200, () => undefined)
    assert.equal(Math.max(...seen), 4)
  })

  test('become fewer when the server is overloaded, and as many as before when it has been well for a while', async () => {
    const turns = new Turns()
    const seen = await loadServer(turns, 20, refuseMany)
    assert.equal(Math.max(...seen.slice(-10)), 1)
    const later = await loadServer(turns, 120, () => undefined)
    assert.equal(Math.max(...later), 4)
  })
})
