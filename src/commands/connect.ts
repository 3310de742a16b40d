// From the configuration to a client of the Prefect API, and the patience that a short command has with it.

import type { Config } from '../config/config.ts'
import { USAGE_ERROR } from '../config/config-error.ts'
import { UserError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { PrefectClient } from '../prefect/client.ts'
import type { ApiError } from '../prefect/errors.ts'
import type { ProxyOptions } from '../proxy.ts'
import { readVersion } from '../version.ts'
import { type Context, createCommandLogger } from './context.ts'

/** Seconds after which a command gives up on a server that does not answer. */
const PATIENCE_SECONDS = 30

/** Makes the client; opens no connection. Throws a UserError with exit code 2 when no API URL is set. */
export async function connect(config: Config, logger: Logger): Promise<PrefectClient> {
  const { api } = config
  if (api.url === undefined) {
    throw new UserError('No Prefect API URL is set.', {
      hint: 'Set PREFECT_API_URL (for example http://127.0.0.1:4200/api) or choose a profile; `rigel dev` tries Rigel without a server.',
      exitCode: USAGE_ERROR,
    })
  }
  const { PrefectClient } = await import('../prefect/client.ts')
  return new PrefectClient({
    url: api.url,
    key: api.key?.reveal(),
    authString: api.authString?.reveal(),
    customHeaders: api.customHeaders?.reveal(),
    tls: { caFile: api.sslCertFile, insecureSkipVerify: api.tlsInsecureSkipVerify },
    proxies: readProxies(config),
    requestTimeoutSeconds: api.requestTimeoutSeconds,
    maxRetries: api.maxRetries,
    jitterFactor: api.retryJitterFactor,
    extraCodes: api.retryExtraCodes,
    csrf: api.csrfSupport,
    cloudApiUrl: api.cloudApiUrl,
    version: readVersion(),
    logger,
  })
}

/** The proxies for whatever this process reaches by itself. Secret. */
export function readProxies({ proxy }: Config): ProxyOptions {
  return { http: proxy.http?.reveal(), https: proxy.https?.reveal(), all: proxy.all?.reveal(), no: proxy.noProxy }
}

/** Asks the server something; gives up with a UserError when it has not answered for 30 s. */
export type Ask = <T>(act: (client: PrefectClient, signal: AbortSignal) => Promise<T>) => Promise<T>

/** Opens a client for one command, which may ask several times. */
export async function withSession<T>(context: Context, act: (ask: Ask) => Promise<T>): Promise<T> {
  await using client = await connect(context.config, createCommandLogger(context))
  return await act(act => askPatiently(client, context, act))
}

/** For a command that asks once. Throws UserError, or the reason of `stopping`. */
export async function withClient<T>(
  context: Context,
  act: (client: PrefectClient, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  return await withSession(context, ask => ask(act))
}

/** Turns "no answer until now" and the API's errors into what a person can use. */
async function askPatiently<T>(
  client: PrefectClient,
  { config, signals }: Context,
  act: (client: PrefectClient, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const patience = AbortSignal.timeout(PATIENCE_SECONDS * 1000)
  try {
    return await act(client, AbortSignal.any([patience, signals.stopping]))
  } catch (cause) {
    if (signals.stopping.aborted || cause instanceof UserError) throw cause
    if (patience.aborted) {
      const last = client.health.lastError
      throw new UserError(
        `The Prefect API has not answered for ${PATIENCE_SECONDS} s${last === undefined ? '.' : `: ${last}`}`,
        { hint: `Is this the right URL? It comes from: ${config.sources['api.url']}.`, cause },
      )
    }
    const { ApiError } = await import('../prefect/errors.ts')
    throw cause instanceof ApiError ? describeApiError(cause, config) : cause
  }
}

function describeApiError(error: ApiError, config: Config): UserError {
  const { hint } = error
  if (hint === undefined) return new UserError(error.message, { cause: error })
  return new UserError(error.message, {
    hint: `${hint} The URL comes from: ${config.sources['api.url']}.`,
    cause: error,
  })
}
