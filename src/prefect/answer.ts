// What an HTTP answer means: pure functions from status and body to a value or an ApiError.
//
// Told apart here: Prefect's own refusals, those of a proxy in between, and things that are no answer of Prefect's at all.

import * as v from 'valibot'
import { shortenText } from '../cut-text.ts'
import { ApiError } from './errors.ts'
import type { HttpAnswer } from './http.ts'
import type { Asked } from './route.ts'

/** An hour: what asks us to stay away for longer is a mistake, and timers overflow after 24 days. */
const MAX_RETRY_AFTER_MS = 3_600_000

/** Reads the body by the schema. Throws ApiError `malformed`, which names the field but not what stood there. */
export function readBody<T>(answer: HttpAnswer, schema: v.GenericSchema<unknown, T>, asked: Asked): T {
  const result = v.safeParse(schema, readJson(answer, asked), { abortEarly: true })
  if (result.success) return result.output
  throw malformed(answer, asked, describeIssue(result.issues[0]))
}

/**
 * Reads a list, leaving out what does not fit: one strange flow run must not hide all others.
 * `onMisfit` hears of each that is left out.
 */
export function readList<T>(
  answer: HttpAnswer,
  schema: v.GenericSchema<unknown, T>,
  asked: Asked,
  onMisfit: (id: unknown, reason: string) => void,
): { items: T[]; received: number } {
  const body = readJson(answer, asked)
  if (!Array.isArray(body)) throw malformed(answer, asked, `expected an array, got ${kindOf(body)}`)
  const items: T[] = []
  for (const entry of body as unknown[]) {
    const result = v.safeParse(schema, entry, { abortEarly: true })
    if (result.success) items.push(result.output)
    else onMisfit(isObject(entry) ? entry.id : undefined, describeIssue(result.issues[0]))
  }
  return { items, received: body.length }
}

/** Any answer outside 200 to 299, as an error. */
export function buildStatusError(answer: HttpAnswer, asked: Asked, now: number): ApiError {
  const { status } = answer
  const own = readOwnError(answer)
  const words = own.detail ?? (own.isPrefect ? undefined : describeForeign(answer))
  const hint = hintFor(status, own, answer)
  return new ApiError(`${asked.method} ${asked.path} was answered ${status}${words ? `: ${words}` : ''}${hint}`, {
    kind: 'status',
    ...asked,
    status,
    detail: own.detail,
    isNotFound: status === 404 && own.isPrefect,
    mayHaveHappened: asked.method !== 'GET' && mayHaveHappened(status, own),
    retryAfterMs: readRetryAfter(answer, now),
  })
}

/** A refusal (4xx) was not carried out, nor was Prefect's own 503 (its transaction was rolled back). A gateway's may have been. */
function mayHaveHappened(status: number, own: OwnError): boolean {
  if (status === 503) return !own.isPrefect
  return status < 300 || status >= 500 || status === 408
}

interface OwnError {
  readonly detail: string | undefined
  /** The body has the shape of Prefect's own errors, and is not the framework's word for an unknown path. */
  readonly isPrefect: boolean
}

function readOwnError(answer: HttpAnswer): OwnError {
  let body: unknown
  try {
    body = JSON.parse(answer.body)
  } catch {
    return { detail: undefined, isPrefect: false }
  }
  if (!isObject(body)) return { detail: undefined, isPrefect: false }
  const text = body.exception_message ?? body.detail
  const fields = body.exception_detail ?? body.detail
  const words = [typeof text === 'string' ? text : undefined, describeFields(fields)].filter(word => word !== undefined)
  const detail = words.length > 0 ? shortenText(words.join(' '), 500) : undefined
  const isUnknownPath = answer.status === 404 && body.detail === 'Not Found'
  return { detail, isPrefect: ('exception_message' in body || 'detail' in body) && !isUnknownPath }
}

/** `body.state.id: Extra inputs are not permitted` from the validator's list; its `input` and `ctx` are the request's data. */
function describeFields(fields: unknown): string | undefined {
  if (!Array.isArray(fields)) return undefined
  const lines = (fields as unknown[]).filter(isObject).map(({ loc, msg }) => {
    const place = Array.isArray(loc) ? loc.filter(step => ['string', 'number'].includes(typeof step)).join('.') : ''
    return `${place}: ${typeof msg === 'string' ? shortenText(msg, 120) : 'not accepted'}`
  })
  return lines.length > 0 ? lines.slice(0, 5).join('; ') : undefined
}

function hintFor(status: number, own: OwnError, answer: HttpAnswer): string {
  if (status === 401) return '. Check PREFECT_API_KEY or PREFECT_API_AUTH_STRING.'
  if (status === 403 && !own.isPrefect) return '. Check PREFECT_API_KEY and the rights that it has.'
  if (status === 404 && !own.isPrefect)
    return '. That is no answer of Prefect’s API: check PREFECT_API_URL, which usually ends in /api.'
  if (status >= 300 && status < 400) {
    return `. It points to ${describeLocation(answer.headers.get('location'))}, which is not followed: check PREFECT_API_URL.`
  }
  return ''
}

/** Without user, password and query. */
function describeLocation(location: string | undefined): string {
  if (location === undefined) return 'nowhere'
  const url = URL.parse(location, 'http://same-host')
  if (!url) return 'an address that cannot be read'
  return url.host === 'same-host' ? url.pathname : `${url.origin}${url.pathname}`
}

function describeForeign(answer: HttpAnswer): string {
  if (answer.body.trim() === '') return 'no body'
  return `a body of type ${shortenText(answer.headers.get('content-type') ?? 'unknown', 60)}`
}

/** Seconds (also fractions) or an HTTP date, judged by the server's own Date when it sent one. */
export function readRetryAfter(answer: Pick<HttpAnswer, 'headers'>, now: number): number | undefined {
  const text = answer.headers.get('retry-after')?.trim()
  if (text === undefined || text === '') return undefined
  const seconds = Number(text)
  const serverNow = Date.parse(answer.headers.get('date') ?? '')
  const ms = Number.isNaN(seconds) ? Date.parse(text) - (Number.isNaN(serverNow) ? now : serverNow) : seconds * 1000
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), MAX_RETRY_AFTER_MS)
}

function readJson(answer: HttpAnswer, asked: Asked): unknown {
  if (answer.status === 204 || answer.body === '') return null
  try {
    return JSON.parse(answer.body)
  } catch {
    const encoding = answer.headers.get('content-encoding')
    const what =
      encoding && encoding !== 'identity'
        ? `${shortenText(encoding, 20)}-coded, though not asked for`
        : describeForeign(answer)
    throw malformed(answer, asked, `expected JSON, got ${what}`)
  }
}

function malformed(answer: HttpAnswer, asked: Asked, reason: string): ApiError {
  return new ApiError(
    `${asked.method} ${asked.path} was answered ${answer.status} with something that Prefect does not send: ${reason}`,
    {
      kind: 'malformed',
      ...asked,
      status: answer.status,
      mayHaveHappened: asked.method !== 'GET',
    },
  )
}

/** Path and expectation; valibot's own message would quote the value, which may be a secret. */
function describeIssue(issue: v.BaseIssue<unknown>): string {
  const path = v.getDotPath(issue) ?? ''
  if (path !== '' && issue.input === undefined) return `${path}: is missing`
  const expected =
    issue.kind === 'schema' ? (issue.expected ?? issue.type) : `a valid ${issue.type === 'regex' ? 'form' : issue.type}`
  return `${path === '' ? 'the body' : path}: expected ${expected}, got ${kindOf(issue.input)}`
}

function kindOf(value: unknown): string {
  if (value === null) return 'null'
  if (value === undefined) return 'nothing'
  return Array.isArray(value) ? 'an array' : `${/^[ou]/.test(typeof value) ? 'an' : 'a'} ${typeof value}`
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
