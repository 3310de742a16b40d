// From a route's template to the path that is asked for, and on to where a redirect points. Pure.

import type { HttpAnswer } from './http.ts'

/** Method and route template: `GET /flow_runs/{id}`. */
export type Route = `${'GET' | 'POST' | 'PATCH' | 'PUT' | 'DELETE'} /${string}`

/** What was asked, as error messages name it: without base, query and body. */
export interface Asked {
  readonly method: string
  readonly path: string
}

/** Names may hold anything, so each is quoted. */
export function fillRoute({
  route,
  params = {},
}: {
  readonly route: Route
  readonly params?: Readonly<Record<string, string>>
}): Asked {
  const [method = '', template = ''] = route.split(' ')
  return { method, path: template.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(params[name] ?? '')) }
}

/** Path and query of a redirect that may be followed: same origin, and the method is kept. */
export function readRedirect({ status, headers }: HttpAnswer, method: string, from: URL): string | undefined {
  const isFollowed = status === 307 || status === 308 || (method === 'GET' && [301, 302, 303].includes(status))
  const location = headers.get('location')
  if (!isFollowed || location === undefined) return undefined
  const to = URL.parse(location, from.href)
  return to?.origin === from.origin ? to.pathname + to.search : undefined
}
