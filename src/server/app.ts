// All routes under one roof, behind the checks that every request passes: who asks, in which version, how much.

import { type Context, Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { Database } from './database.ts'
import { Refusal, refuse } from './refusal.ts'
import { blockDocumentRoutes } from './routes/block-documents.ts'
import { blockSchemaRoutes, blockTypeRoutes } from './routes/block-types.ts'
import { deploymentRunRoutes } from './routes/deployment-runs.ts'
import { deploymentRoutes } from './routes/deployments.ts'
import { flowRunInputRoutes } from './routes/flow-run-inputs.ts'
import { runStateRoutes } from './routes/flow-run-states.ts'
import { flowRunRoutes } from './routes/flow-runs.ts'
import { flowRoutes } from './routes/flows.ts'
import { logRoutes } from './routes/logs.ts'
import { serviceRoutes } from './routes/service.ts'
import { taskRunRoutes } from './routes/task-runs.ts'
import { variableRoutes } from './routes/variables.ts'
import { workPoolRoutes } from './routes/work-pools.ts'
import { workQueueRoutes } from './routes/work-queues.ts'
import type { SchedulerBell } from './services.ts'

/** Engines send logs in batches of 3 MB; results are kept elsewhere. */
const MAX_BODY_BYTES = 16 * 1024 * 1024

/** What a client of any version may ask. */
const UNVERSIONED: ReadonlySet<string> = new Set(['/api/health', '/api/ready', '/api/version'])

export interface AppOptions {
  readonly database: Database
  readonly bell: SchedulerBell
  readonly logger: Logger
  /** Host names under which requests may come and from which pages may ask; undefined = any. */
  readonly allowedHosts: ReadonlySet<string> | undefined
}

export function buildApp({ database, bell, logger, allowedHosts }: AppOptions): Hono {
  // Not strict: Prefect's clients write some paths with a slash at the end and some without.
  const app = new Hono({ strict: false })

  app.use(async (context, next) => {
    if (allowedHosts) refuseForeign(allowedHosts, context.req.header('host'), context.req.header('origin'))
    if (!UNVERSIONED.has(context.req.path)) refuseOldVersion(context.req.header('x-prefect-api-version'))
    await next()
  })
  app.use(
    bodyLimit({ maxSize: MAX_BODY_BYTES, onError: context => context.json({ detail: 'Request body too large' }, 413) }),
  )

  app.route('/api', serviceRoutes())
  app.route('/api/flows', flowRoutes(database))
  app.route('/api/flow_runs', flowRunRoutes(database))
  app.route('/api/flow_runs', flowRunInputRoutes(database))
  app.route('/api/flow_run_states', runStateRoutes(database, 'flow_run'))
  app.route('/api/task_runs', taskRunRoutes(database))
  app.route('/api/task_run_states', runStateRoutes(database, 'task_run'))
  app.route('/api/deployments', deploymentRoutes(database, bell))
  app.route('/api/deployments', deploymentRunRoutes(database, bell))
  app.route('/api/work_queues', workQueueRoutes(database))
  app.route('/api/work_pools', workPoolRoutes(database))
  app.route('/api/block_types', blockTypeRoutes(database))
  app.route('/api/block_schemas', blockSchemaRoutes(database))
  app.route('/api/block_documents', blockDocumentRoutes(database))
  app.route('/api/variables', variableRoutes(database))
  app.route('/api/logs', logRoutes(database))

  app.notFound(context => context.json({ detail: 'Not Found' }, 404))
  app.onError((error, context) => {
    if (error instanceof Refusal) return respond(context, error)
    // JSON that nests some thousand levels deep can be read but not written again.
    if (error instanceof RangeError) return respond(context, refuse(422, 'The request body is nested too deeply.'))
    // The body may hold secrets; method and path are enough to find the bug.
    logger.error({ method: context.req.method, path: context.req.path, error: describeError(error) }, 'request failed')
    return context.json({ exception_message: 'Internal Server Error' }, 500)
  })
  return app
}

/** An answer to an invalid request echoes it, which may be more than can be written. */
function respond(context: Context, { body, status }: Refusal): Response {
  try {
    return context.json(body, status)
  } catch {
    return context.json({ ...body, request_body: null }, status)
  }
}

/** A page of another site, or a name of another site that leads to this machine, has no business here. */
function refuseForeign(allowed: ReadonlySet<string>, host: string | undefined, origin: string | undefined): void {
  if (host === undefined || !allowed.has(hostName(`http://${host}`)))
    throw refuse(403, 'This host name is not served here.')
  if (origin !== undefined && !allowed.has(hostName(origin)))
    throw refuse(403, 'Requests from this origin are refused.')
}

function hostName(url: string): string {
  return URL.canParse(url) ? new URL(url).hostname.toLowerCase() : ''
}

/** Older clients than 0.8.0 speak another language; newer ones are welcome. */
function refuseOldVersion(version: string | undefined): void {
  if (version === undefined) return
  const parts = /^(\d+)\.(\d+)\.(\d+)$/.exec(version)
  if (!parts) throw refuse(400, `Invalid X-PREFECT-API-VERSION header format. Expected header in format 'x.y.z'`)
  const [major = 0, minor = 0] = parts.slice(1).map(Number)
  if (major === 0 && minor < 8)
    throw refuse(400, `The API version ${version} is too old: this server needs 0.8.0 or newer.`)
}
