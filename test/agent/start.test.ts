// From a claim to something that runs, where two runs of one poll answer meet.

import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { test } from 'node:test'
import * as v from 'valibot'
import type { AgentContext } from '../../src/agent/agent-context.ts'
import { SharedReads } from '../../src/agent/assignment.ts'
import { newRecord } from '../../src/agent/record.ts'
import { NotLaunched, Run } from '../../src/agent/run.ts'
import { start } from '../../src/agent/start.ts'
import { createLogger } from '../../src/logger.ts'
import { PrefectClient } from '../../src/prefect/client.ts'
import { FlowRun } from '../../src/prefect/types.ts'
import { listen } from '../support/listen.ts'

const id = '11111111-1111-4111-8111-111111111111'

test('a run that is cancelled leaves what others read with it', async () => {
  const asked = Promise.withResolvers<void>()
  const mayAnswer = Promise.withResolvers<void>()
  let requests = 0
  const server = createServer((_request, response) => {
    requests++
    asked.resolve()
    const answer = () =>
      response.writeHead(404, { 'content-type': 'application/json' }).end('{"detail":"Deployment not found"}')
    void mayAnswer.promise.then(answer)
  })
  const { port } = await listen(server)
  const logger = createLogger({ level: 'ERROR', pretty: true, destination: process.stderr })
  await using client = new PrefectClient({ url: `http://127.0.0.1:${port}/api`, logger, maxRetries: 0 })
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a launch that ends at its first read needs no more
  const context = { client, logger, checkpoint: () => undefined } as unknown as AgentContext
  const flowRun = v.parse(FlowRun, { id, name: 'r', flow_id: id, deployment_id: id, state_type: 'PENDING' })
  const due = { run: flowRun, shared: new SharedReads() }
  const { signal: detach } = new AbortController()
  const record = { ...newRecord(flowRun, id), step: 'claimed' as const }
  const [cancelled, other] = [new Run(context, record, due, detach), new Run(context, record, due, detach)]

  const endOf = (run: Run) => start(run, flowRun).catch((error: unknown) => error)
  const ends = [endOf(cancelled), endOf(other)]
  await asked.promise
  cancelled.requestStop('cancelled')
  const first = await ends[0]
  mayAnswer.resolve()
  const second = await ends[1]
  server.close()

  assert.ok(first instanceof NotLaunched && second instanceof NotLaunched, String(second))
  assert.match(JSON.stringify(first.ending), /ended before it was started/)
  assert.match(JSON.stringify(second.ending), /deployment of this flow run has been deleted/)
  assert.equal(requests, 1)
})
