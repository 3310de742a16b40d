// Which proxy, if any, a request goes through: to the API and to storage alike. Pure: the variables' values come in, a URL goes out.
//
// The rules are those of Prefect's client (httpx): a proxy per scheme, ALL_PROXY for the rest, NO_PROXY for exceptions.

import { BlockList, isIP } from 'node:net'

export interface ProxyOptions {
  /** Values of HTTP_PROXY, HTTPS_PROXY, ALL_PROXY: URLs, which may hold a user and a password. */
  readonly http?: string | undefined
  readonly https?: string | undefined
  readonly all?: string | undefined
  /** Value of NO_PROXY: hosts, `.suffixes`, addresses and networks (`10.0.0.0/8`), each with an optional port, or `*`. */
  readonly no?: string | undefined
}

/** The proxy for `url`, or undefined when it is to be reached directly. */
export function chooseProxy(url: URL, proxies: ProxyOptions): string | undefined {
  const proxy = (url.protocol === 'https:' ? proxies.https : proxies.http) || proxies.all
  if (!proxy || isExcepted(url, proxies.no ?? '')) return undefined
  const address = proxy.includes('://') ? proxy : `http://${proxy}`
  // Whoever parses it next would show it, with its password.
  if (!URL.canParse(address)) throw new Error('The address of the proxy is not a URL')
  return address
}

function isExcepted(url: URL, exceptions: string): boolean {
  const host = bare(url.hostname)
  const port = url.port || (url.protocol === 'https:' ? '443' : '80')
  return exceptions
    .split(/[,\s]+/)
    .filter(entry => entry !== '')
    .some(entry => matches(readEntry(entry), host, port))
}

function readEntry(entry: string): { host: string; port: string | undefined } {
  const text = entry.replace(/^[a-z]+:\/\//i, '').toLowerCase()
  const withPort = /^(\[[^\]]+\]|[^:]+):(\d+)$/.exec(text)
  return { host: bare(withPort?.[1] ?? text), port: withPort?.[2] }
}

function matches(entry: { host: string; port: string | undefined }, host: string, port: string): boolean {
  if (entry.port !== undefined && entry.port !== port) return false
  if (entry.host === '*' || entry.host === host) return true
  if (entry.host.includes('/')) return isInNetwork(host, entry.host)
  // `example.com`, `.example.com` and `*.example.com` all cover the hosts below it.
  return !isIP(host) && host.endsWith(`.${entry.host.replace(/^\*?\./, '')}`)
}

function isInNetwork(host: string, network: string): boolean {
  const [address = '', bits = ''] = network.split('/')
  const family = isIP(address)
  if (family === 0 || isIP(host) !== family || !/^\d+$/.test(bits) || Number(bits) > (family === 4 ? 32 : 128))
    return false
  const type = family === 4 ? 'ipv4' : 'ipv6'
  const block = new BlockList()
  block.addSubnet(address, Number(bits), type)
  return block.check(host, type)
}

/** A host name without the brackets of an IPv6 address and without the dot at a full name's end. */
function bare(host: string): string {
  return host
    .toLowerCase()
    .replace(/^\[(.*)\]$/, '$1')
    .replace(/(.)\.$/, '$1')
}
