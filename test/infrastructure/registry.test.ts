// Drivers are found by their block's slug, and loaded when they are needed.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { promisify } from 'node:util'
import { InfrastructureError } from '../../src/infrastructure/infrastructure.ts'
import { type InfrastructureContext, loadInfrastructure } from '../../src/infrastructure/registry.ts'
import { quietLogger } from './process-subject.ts'

const context: InfrastructureContext = {
  runsDirectory: '/nonexistent',
  logger: quietLogger,
  outputCapBytes: 1024,
  environment: {},
  inheritEnv: 'all',
}

test('one driver per type, however often it is asked for', async () => {
  const [one, two] = await Promise.all([loadInfrastructure('process', context), loadInfrastructure('process', context)])
  assert.equal(one, two)
  assert.notEqual(await loadInfrastructure('process', { ...context }), one)
})

test('an unknown type blames the run and is named', async () => {
  for (const type of ['vertex-ai', 'toString', '']) {
    await assert.rejects(
      loadInfrastructure(type, context),
      (error: unknown) =>
        error instanceof InfrastructureError && error.blame === 'run' && error.message.includes(`"${type}"`),
    )
  }
})

test('a driver that is not asked for is not loaded', async () => {
  const registry = join(import.meta.dirname, '../../src/infrastructure/registry.ts')
  // Both clients are CommonJS, or made of it, so require.cache lists what is loaded of them.
  const program = `import(${JSON.stringify(registry)})
    .then(({ loadInfrastructure }) => loadInfrastructure('process', { logger: { child: () => ({}) }, environment: {} }))
    .then(() => console.log(Object.keys(require.cache).join(), 'loaded'))`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=commonjs', '-e', program])
  assert.match(stdout, /loaded/)
  assert.doesNotMatch(stdout, /dockerode|kubernetes/)
})
