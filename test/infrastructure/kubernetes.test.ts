// The Kubernetes driver keeps what every infrastructure promises.

import { needs } from '../support/requires.ts'
import { testContract } from './contract.ts'
import { makeKubernetesSubject } from './kubernetes-subject.ts'

testContract('kubernetes-job', {
  ...needs('kubernetes'),
  makeSubject: makeKubernetesSubject,
  timeoutMs: 90_000,
  concurrency: 4,
})
