// Holds a conversation with a Prefect API and writes down what is comparable of the answers.
//
// Ids become the names under which steps have kept them, times and other chance values become marks, and sentences for
// people are left out: what remains must be the same on the real server and on ours.

import { setTimeout as delay } from 'node:timers/promises'

export interface Step {
  /** What this step is about; unique. */
  readonly name: string
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  /** Below the API's URL; `{x}` stands for a value that an earlier step has kept as `x`. */
  readonly path: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  /** Name to place in the answer, such as `run: 'id'` or `state: 'state.id'`. */
  readonly keep?: Readonly<Record<string, string>>
  /** Only these places of the answer are compared. */
  readonly only?: readonly string[]
}

export interface Exchange {
  readonly name: string
  readonly status: number
  readonly body: unknown
}

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g
const TIME = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:\+00:00|Z)/g
/** Sentences: a server may word them as it likes, clients match only the few that have a test of their own. */
const SENTENCES = new Set(['reason', 'detail', 'exception_message', 'msg', 'message'])
/** Values that depend on the clock. */
const MOVING = new Set(['estimated_run_time', 'estimated_start_time_delta', 'total_run_time', 'delay_seconds'])

export async function converse(apiUrl: string, steps: readonly Step[]): Promise<Exchange[]> {
  const kept = new Map<string, string>()
  const exchanges: Exchange[] = []
  for (const step of steps) {
    const fill = (text: string): string => text.replace(/\{(\w+)\}/g, (whole, name: string) => kept.get(name) ?? whole)
    const response = await send(apiUrl + fill(step.path), {
      method: step.method,
      redirect: 'manual',
      headers: { 'content-type': 'application/json', ...step.headers },
      ...(step.body === undefined ? {} : { body: fill(JSON.stringify(step.body)) }),
    })
    const text = await response.text()
    const body: unknown = text === '' ? null : parse(text)
    for (const [name, place] of Object.entries(step.keep ?? {})) {
      const value = at(body, place)
      if (typeof value === 'string') kept.set(name, value)
    }
    // What is not there is left out, as JSON leaves it out of the record.
    const places = (step.only ?? []).map(place => [place, at(body, place)] as const)
    const compared = step.only ? Object.fromEntries(places.filter(([, value]) => value !== undefined)) : body
    exchanges.push({ name: step.name, status: response.status, body: normalise(compared, kept) })
  }
  return exchanges
}

/** A real server on SQLite answers 503 when its own services write at the same time; nothing has happened then. */
async function send(url: string, request: RequestInit): Promise<Response> {
  for (let left = 5; ; left--) {
    const response = await fetch(url, request)
    if (response.status !== 503 || left === 0) return response
    await response.body?.cancel()
    await delay(200)
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

function at(body: unknown, place: string): unknown {
  return place.split('.').reduce<unknown>((value, key) => {
    if (typeof value !== 'object' || value === null) return undefined
    return Object.entries(value).find(([name]) => name === key)?.[1]
  }, body)
}

function normalise(value: unknown, kept: ReadonlyMap<string, string>, key = ''): unknown {
  // Of what is wrong with a request, the place of the first fault is what a client can use.
  if (key === 'exception_detail' && Array.isArray(value)) return at(value[0], 'loc')
  if (Array.isArray(value)) {
    const items = value.map(item => normalise(item, kept))
    return key === 'tags' || key === 'pause_keys' ? items.toSorted((a, b) => (String(a) < String(b) ? -1 : 1)) : items
  }
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).map(([name, item]) => [name, normalise(item, kept, name)] as const)
    return Object.fromEntries(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)))
  }
  if (typeof value === 'number' && MOVING.has(key)) return '<seconds>'
  if (typeof value !== 'string') return value
  if (SENTENCES.has(key)) return '<sentence>'
  if (key === 'name' && /^[a-z]+-[a-z]+$/.test(value)) return '<run name>'
  const names = new Map([...kept].map(([name, id]) => [id, name]))
  return value.replace(UUID, id => `<${names.get(id) ?? 'uuid'}>`).replace(TIME, '<time>')
}
