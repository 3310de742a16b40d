import assert from 'node:assert/strict'
import test from 'node:test'
import { explainStartFailure } from '../../src/infrastructure/docker-exit.ts'

test('a start that the engine has lost sight of is told as that, for what it started may still run', () => {
  // Words of Docker 20.10, killed and started again between the start of the process and its answer.
  const words = 'Could not start container "cerulean-bulldog-3bfdb973.64aai4": id already in use'
  assert.match(explainStartFailure(words, '/job.sh', 'busybox'), /has lost sight of it; what was started may still run/)
})
