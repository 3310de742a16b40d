// Whom Azure Blob Storage believes who somebody is, for tests: a tenant of Microsoft Entra ID with one service principal, and
// the endpoints of its managed identity in App Service and on a virtual machine. They hand out tokens that Azurite takes.

import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import { text } from 'node:stream/consumers'
import { listen } from '../support/listen.ts'

export const principal = {
  tenant_id: 'ab1f708d-50f6-404c-a006-d71b2ac7a606',
  client_id: 'f997392c-e15a-4ad8-af9e-cd6966caba7f',
  client_secret: 'rigel~Secret.of+the/principal',
}

/** What the principal shows instead of its secret where it is a workload of Kubernetes. */
export const federatedToken = 'rigel.federated.token'

const appServicePath = '/msi/token'
const identityHeader = 'rigel-identity-header'

export interface AzureTenant extends AsyncDisposable {
  /** Environment of whoever asks it for tokens of the principal. */
  readonly authority: { readonly AZURE_AUTHORITY_HOST: string }
  /** Environment that App Service gives to a managed identity. */
  readonly identity: { readonly IDENTITY_ENDPOINT: string; readonly IDENTITY_HEADER: string }
  /** What a virtual machine reaches at 169.254.169.254. */
  readonly address: { readonly host: string; readonly port: number }
  /** By what each token was given. */
  readonly given: readonly string[]
}

/** The tokens of another `audience` are for something else than storage. */
export async function startTenant({ audience = 'https://storage.azure.com' } = {}): Promise<AzureTenant> {
  const given: string[] = []
  const respond = async (request: IncomingMessage, response: ServerResponse) => {
    const { status, by, body } = await answer(request)
    if (by !== undefined) given.push(by)
    const token = by === undefined ? {} : { access_token: makeToken(audience), token_type: 'Bearer' }
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify({ ...body, ...token }))
  }
  const server = createServer((request, response) => void respond(request, response))
  const { port } = await listen(server)
  const base = `http://127.0.0.1:${port}`
  return {
    authority: { AZURE_AUTHORITY_HOST: base },
    identity: { IDENTITY_ENDPOINT: `${base}${appServicePath}`, IDENTITY_HEADER: identityHeader },
    address: { host: '127.0.0.1', port },
    given,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

interface Answer {
  readonly status: number
  /** Undefined: no token. */
  readonly by?: string
  readonly body: Readonly<Record<string, unknown>>
}

async function answer(request: IncomingMessage): Promise<Answer> {
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://tenant')
  if (request.method === 'GET') return answerIdentity(pathname, searchParams, request.headers)
  const form = new URLSearchParams(await text(request))
  if (pathname === `/${principal.tenant_id}/oauth2/v2.0/token`) return answerPrincipal(form)
  return refuse(400, 'invalid_request', `AADSTS90002: Tenant '${pathname.split('/')[1]}' not found.`)
}

/** Microsoft's "OAuth 2.0 client credentials flow", with a shared secret and with a federated credential. */
function answerPrincipal(form: URLSearchParams): Answer {
  const client = form.get('client_id')
  if (form.get('grant_type') !== 'client_credentials')
    return refuse(400, 'unsupported_grant_type', 'AADSTS70003: The app requested an unsupported grant type.')
  if (form.get('scope') !== 'https://storage.azure.com/.default')
    return refuse(400, 'invalid_scope', `AADSTS70011: The provided value for scope ${form.get('scope')} is not valid.`)
  if (client !== principal.client_id)
    return refuse(400, 'unauthorized_client', `AADSTS700016: Application '${client}' was not found in the directory.`)
  const assertion = form.get('client_assertion')
  if (assertion === federatedToken) return { status: 200, by: 'federated token', body: { expires_in: 3599 } }
  if (assertion === null && form.get('client_secret') === principal.client_secret)
    return { status: 200, by: 'secret', body: { expires_in: 3599 } }
  return refuse(401, 'invalid_client', 'AADSTS7000215: Invalid client secret provided.')
}

/** Microsoft's "REST endpoint reference" of App Service, and "Get a token using HTTP" of virtual machines: numbers as text. */
function answerIdentity(path: string, query: URLSearchParams, headers: IncomingHttpHeaders): Answer {
  const version = query.get('api-version')
  const isAppService =
    path === appServicePath && version === '2019-08-01' && headers['x-identity-header'] === identityHeader
  const isMachine =
    path === '/metadata/identity/oauth2/token' && version === '2018-02-01' && headers.metadata === 'true'
  const isKnown = (query.get('client_id') ?? principal.client_id) === principal.client_id
  if (!(isAppService || isMachine) || !isKnown || query.get('resource') !== 'https://storage.azure.com/')
    return refuse(400, 'invalid_request', 'Identity not found')
  const ends = { expires_on: String(Math.floor(Date.now() / 1000) + 3599) }
  return isAppService
    ? { status: 200, by: 'App Service', body: ends }
    : { status: 200, by: 'virtual machine', body: { ...ends, expires_in: '3599' } }
}

function refuse(status: number, error: string, description: string): Answer {
  return { status, body: { error, error_description: description } }
}

/** Signed by nobody: Azurite looks at what it says. */
function makeToken(audience: string): string {
  const now = Math.floor(Date.now() / 1000)
  const issuer = `https://sts.windows.net/${principal.tenant_id}/`
  const claims = { aud: audience, iss: issuer, iat: now, nbf: now, exp: now + 3599, appid: principal.client_id }
  const parts = [{ alg: 'RS256', typ: 'JWT' }, claims].map(part => Buffer.from(JSON.stringify(part)))
  return [...parts, Buffer.from('unsigned')].map(part => part.toString('base64url')).join('.')
}
