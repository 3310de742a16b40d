import assert from 'node:assert/strict'
import test from 'node:test'
import { explainStartFailure, isTooLate } from '../../src/infrastructure/docker-exit.ts'

test('a start that the engine has lost sight of is told as that, for what it started may still run', () => {
  // Words of Docker 20.10, killed and started again between the start of the process and its answer.
  const words = 'Could not start container "cerulean-bulldog-3bfdb973.64aai4": id already in use'
  assert.match(explainStartFailure(words, '/job.sh', 'busybox'), /has lost sight of it; what was started may still run/)
})

test('a runtime that was too late to make a container ready is told from one that was too late to start it', () => {
  const because = 'opening w/o fifo "/run/init-stdout" failed: context deadline exceeded'
  assert.equal(isTooLate(`failed to create shim task: failed to start io pipe copy: ${because}`), true)
  assert.equal(isTooLate('failed to create task for container: context deadline exceeded: unknown'), true)
  assert.equal(isTooLate('cannot start a stopped process: context deadline exceeded'), false)
  assert.equal(isTooLate('failed to create shim task: exec: "no": executable file not found in $PATH'), false)
})
