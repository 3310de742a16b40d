// What a client asks about the server itself.

import { Hono } from 'hono'

/** The server whose behaviour this one has. */
export const PREFECT_VERSION = '2.20.25'
/** The API version of that server. */
export const API_VERSION = '0.8.4'

export function serviceRoutes(): Hono {
  const routes = new Hono()
  routes.get('/health', context => context.json(true))
  routes.get('/ready', context => context.json({ message: 'OK' }))
  routes.get('/hello', context => context.json('👋'))
  routes.get('/version', context => context.json(API_VERSION))
  routes.get('/admin/version', context => context.json(PREFECT_VERSION))
  // Clients take exactly this text for "go on without tokens".
  routes.get('/csrf-token', context => context.json({ detail: 'CSRF protection is disabled.' }, 422))
  return routes
}
