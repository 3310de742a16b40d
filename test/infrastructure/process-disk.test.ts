// A full disk cuts output; it fails no run that lives, and a run that cannot be started is given back.

import assert from 'node:assert/strict'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { InfrastructureError } from '../../src/infrastructure/infrastructure.ts'
import { needs } from '../support/requires.ts'
import { mountSmallDisk } from '../support/small-disk.ts'
import { until } from '../support/until.ts'
import { ignoreOutput, makeSpec, unstopped } from './contract.ts'
import { leakMark, makeProcessSubject } from './process-subject.ts'

const ballastOf = (disk: string): string => join(disk, 'ballast')

async function fill(disk: string): Promise<void> {
  await assert.rejects(writeFile(ballastOf(disk), Buffer.alloc(1024 * 1024, 1)), { code: 'ENOSPC' })
}

test(
  'a run that cannot be started for want of disk blames the host, and starts when there is room',
  needs('root'),
  async () => {
    await using disk = await mountSmallDisk(512)
    await using subject = await makeProcessSubject({ runsDirectory: join(disk.path, 'runs') })
    const spec = makeSpec(subject, 'exit 0', { env: leakMark, files: { big: 'x'.repeat(1000) } })
    await subject.prepare(spec.flowRunId)
    await fill(disk.path)
    await assert.rejects(
      subject.infrastructure.submit(spec, unstopped),
      (error: unknown) =>
        error instanceof InfrastructureError && error.blame === 'host' && /ENOSPC/.test(error.message),
    )
    assert.equal(await subject.infrastructure.reattach(spec, undefined, unstopped), undefined)
    await rm(ballastOf(disk.path))
    const handle = await subject.infrastructure.submit(spec, unstopped)
    const exit = await subject.infrastructure.wait(handle, ignoreOutput, unstopped)
    assert.equal(exit.kind === 'exited' && exit.statusCode, 0)
  },
)

test('a run that ends while the disk is full is told with its code', needs('root'), async () => {
  await using disk = await mountSmallDisk(512)
  await using subject = await makeProcessSubject({ runsDirectory: join(disk.path, 'runs') })
  const spec = makeSpec(subject, 'echo ready; while [ ! -e "$GO" ]; do sleep 0.05; done; exit 11', {
    env: { ...leakMark, GO: `${disk.path}.go` },
  })
  await subject.prepare(spec.flowRunId)
  const handle = await subject.infrastructure.submit(spec, unstopped)
  const lines: string[] = []
  const waiting = subject.infrastructure.wait(handle, more => void lines.push(...more), unstopped)
  await until(() => lines.includes('ready'))
  await fill(disk.path)
  await writeFile(`${disk.path}.go`, '')
  const exit = await waiting
  await rm(`${disk.path}.go`)
  assert.equal(exit.kind === 'exited' && exit.statusCode, 11)
})
