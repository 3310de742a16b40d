// The Docker driver keeps what every infrastructure promises.

import { needs } from '../support/requires.ts'
import { testContract } from './contract.ts'
import { makeDockerSubject } from './docker-subject.ts'

testContract('docker-container', {
  skip: needs('docker').skip,
  makeSubject: () => makeDockerSubject(),
  timeoutMs: 60_000,
  concurrency: 4,
})
