// Sends a file to a data node of HDFS. By Node's own client: a data node says "100 Continue" also to those who did not ask,
// which undici takes for a broken answer.

import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { Agent as HttpAgent, type IncomingMessage, request as requestHttp } from 'node:http'
import { Agent as HttpsAgent, request as requestHttps } from 'node:https'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { chooseProxy, type ProxyOptions } from '../proxy.ts'
import type { Upload } from './source.ts'

const silenceMs = 30_000

export interface HdfsWay {
  readonly caFile: string | undefined
  readonly insecure: boolean
  readonly proxies: ProxyOptions
}

export interface HdfsAddress {
  readonly origin: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
}

/** Gives the answer's status and text. Rejects with the connection's error, or the signal's reason. */
export async function putFile(
  { origin, path, headers: own }: HdfsAddress,
  upload: Upload,
  { caFile, insecure, proxies }: HdfsWay,
  signal: AbortSignal,
): Promise<{ readonly status: number; readonly body: string }> {
  const url = `${origin}${path}`
  const headers = { ...own, 'content-type': 'application/octet-stream', 'content-length': upload.size }
  const options = { method: 'PUT', headers, signal, timeout: silenceMs }
  const proxy = chooseProxy(new URL(url), proxies)
  const sent = url.startsWith('https:')
    ? requestHttps(url, {
        ...options,
        agent: proxy !== undefined && new HttpsAgent({ proxyEnv: { HTTPS_PROXY: proxy } }),
        rejectUnauthorized: !insecure,
        ...(caFile === undefined ? {} : { ca: await readFile(caFile) }),
      })
    : requestHttp(url, {
        ...options,
        agent: proxy !== undefined && new HttpAgent({ proxyEnv: { HTTP_PROXY: proxy } }),
      })
  sent.on('timeout', () => sent.destroy(Object.assign(new Error('The data node is silent'), { code: 'ETIMEDOUT' })))
  const content = await upload.open()
  // The event has one argument.
  const answered: Promise<IncomingMessage[]> = once(sent, 'response')
  const [[answer]] = await Promise.all([
    answered,
    content instanceof Uint8Array ? void sent.end(content) : pipeline(content, sent),
  ])
  return { status: answer?.statusCode ?? 0, body: answer === undefined ? '' : await text(answer) }
}
