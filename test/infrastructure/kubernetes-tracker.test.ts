// What time alone decides is never said without a look: whoever has stood still knows old things only.

import assert from 'node:assert/strict'
import test from 'node:test'
import { KubeConfig } from '@kubernetes/client-node'
import { ClusterClient } from '../../src/infrastructure/kubernetes-client.ts'
import { Rights } from '../../src/infrastructure/kubernetes-rights.ts'
import { Tracker } from '../../src/infrastructure/kubernetes-tracker.ts'
import type { Verdict } from '../../src/infrastructure/kubernetes-verdict.ts'
import { watchTimes } from '../../src/infrastructure/kubernetes-watch.ts'
import { createLogger } from '../../src/logger.ts'
import { needs } from '../support/requires.ts'
import { kubeconfig, makeKubernetesSubject, unstopped } from './kubernetes-subject.ts'

const options = { ...needs('kubernetes'), timeout: 240_000 }
const day = 86_400_000

/** Counts looks at one Job: one begins with the Job itself and is over when its pods are there. */
class LookingClient extends ClusterClient {
  begun = 0
  over = 0

  override async call(...call: Parameters<ClusterClient['call']>): ReturnType<ClusterClient['call']> {
    const [method, path, { query }] = call
    if (method === 'GET' && path.includes('/jobs/')) this.begun += 1
    const answer = await super.call(...call)
    if (path.endsWith('/pods') && String(query?.labelSelector).includes('job-name=')) this.over += 1
    return answer
  }
}

test('a run that a look has found to go on is looked at again before a verdict', options, async () => {
  await using subject = await makeKubernetesSubject()
  const spec = await subject.spec('true', { settings: { image: 'rigel.test/nobody:1' } })
  await subject.infrastructure.submit(spec, unstopped)
  const name = (await subject.jobs())[0]?.metadata.name ?? ''
  const config = new KubeConfig()
  config.loadFromFile(kubeconfig)
  await using client = new LookingClient(config)
  const { namespace, agentPrefix: agent } = subject
  const logger = createLogger({ level: 'ERROR', pretty: false, destination: { write: () => {} } })
  const rights = new Rights(logger)
  const { promise, resolve, reject } = Promise.withResolvers<Verdict>()
  await using tracker = new Tracker({ client, namespace, agent, logger, rights, times: watchTimes }, reject)
  let hasGoneOn = false
  // The image cannot be pulled: no grace until that has brought about a look, endless grace until that is over, then none.
  const startGraceMs = () => {
    const isPatient = client.begun >= 2 && !hasGoneOn
    hasGoneOn ||= client.over >= 2
    return isPatient ? day : 0
  }
  tracker.track(name, { startGraceMs, onState: () => {}, onCause: () => {}, onVerdict: resolve })
  assert.equal((await promise).kind, 'ended')
  assert.equal(client.begun, 3)
})
