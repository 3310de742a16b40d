// A program of its own: a server that answers at once, so that a burst shows what the agent itself can do.
//
//   node bench/instant-server.ts RUNS COMMAND      prints its API URL
//
// One queue, one deployment, one process block with COMMAND, and RUNS flow runs that are due. It keeps their states in
// memory and accepts every proposal. Not a test double: it knows no rule.

import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import process from 'node:process'
import { text } from 'node:stream/consumers'

const [count = '300', command = 'true'] = process.argv.slice(2)
const [queueId, flowId, deploymentId, blockId, typeId] = Array.from({ length: 5 }, () => randomUUID())
const due = new Date(Date.now() - 1000).toISOString()

interface Run {
  readonly id: string
  readonly [field: string]: unknown
}

const runs = new Map<string, Run>()
for (let at = 0; at < Number(count); at++) {
  const id = randomUUID()
  const details = { scheduled_time: due }
  const state = { id: randomUUID(), type: 'SCHEDULED', name: 'Scheduled', timestamp: due, state_details: details }
  const ids = { id, flow_id: flowId, deployment_id: deploymentId, work_queue_id: queueId }
  const states = { state, state_type: state.type, state_name: state.name, next_scheduled_start_time: due }
  runs.set(id, { ...ids, ...states, name: `run-${at}`, expected_start_time: due, run_count: 0, parameters: {} })
}
let waiting = [...runs.values()]

const deployment = {
  id: deploymentId,
  name: 'instant',
  flow_id: flowId,
  entrypoint: 'flow.py:f',
  infrastructure_document_id: blockId,
}
const type = { id: typeId, name: 'Process', slug: 'process' }
const block = { id: blockId, data: { command: [command] }, block_type_id: typeId, block_type: type }

function answer(method: string, path: string, body: string): unknown {
  const [room, id = '', act] = path.replace(/^\/api\//, '').split('/')
  switch (room) {
    case 'work_queues':
      return act === 'get_runs' ? waiting.slice(0, readBody(body).limit ?? 200) : { id: queueId, name: 'instant' }
    case 'deployments':
      return deployment
    case 'block_documents':
      return block
    case 'flows':
      return { id: flowId, name: 'instant' }
    case 'admin':
      return '2.20.25'
    case 'flow_runs':
      if (id === 'filter') return (readBody(body).flow_runs?.id?.any_ ?? []).map(asked => runs.get(asked))
      if (method === 'GET') return runs.get(id)
      return act === 'set_state' ? setState(id, body) : null
    default:
      return undefined
  }
}

function setState(id: string, body: string): unknown {
  const { state } = readBody(body)
  const run = runs.get(id)
  if (!run || !state) return undefined
  const isClaim = state.type === 'PENDING'
  // As Prefect does; without it the agent would look at each run once more.
  const state_details = { ...state.state_details, ...(isClaim ? { scheduled_time: due } : {}) }
  const accepted = { ...state, state_details, id: randomUUID(), timestamp: new Date().toISOString() }
  runs.set(id, { ...run, state: accepted, state_type: state.type, state_name: state.name ?? state.type })
  if (isClaim) waiting = waiting.filter(other => other.id !== id)
  return { state: accepted, status: 'ACCEPT', details: {} }
}

interface Body {
  readonly limit?: number
  readonly flow_runs?: { readonly id?: { readonly any_?: readonly string[] } }
  readonly state?: { readonly type: string; readonly name?: string; readonly state_details?: object }
}

function readBody(body: string): Body {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- only the agent under test asks, in the API's own shapes
  return JSON.parse(body || '{}') as Body
}

const server = createServer((incoming, outgoing) => {
  void serve(incoming, outgoing)
})

async function serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  const body = await text(incoming)
  const { method = 'GET', url = '/' } = incoming
  const value = answer(method, url.split('?')[0] ?? '', body)
  outgoing.writeHead(value === undefined ? 404 : 200, { 'content-type': 'application/json' })
  outgoing.end(JSON.stringify(value ?? { detail: 'Not Found' }))
}

server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (address !== null && typeof address === 'object') console.log(`http://127.0.0.1:${address.port}/api`)
})
