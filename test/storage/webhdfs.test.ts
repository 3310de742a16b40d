// A gateway in front of a real Hadoop, as Apache Knox is one: it asks for user and password, and sends on to a place where it
// hands through what the data nodes have.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import test from 'node:test'
import { openWritableStorage } from '../../src/storage/registry.ts'
import { makeDirectory } from '../support/directory.ts'
import { addressOf, listen } from '../support/listen.ts'
import { needs } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'
import { makeContext, readTree } from './support.ts'

const signal = new AbortController().signal
const login = { user: 'guest', password: 'guest-password-4711' }
const basic = `Basic ${Buffer.from(`${login.user}:${login.password}`).toString('base64')}`

interface Gateway extends AsyncDisposable {
  readonly port: number
  /** The logins that came with requests for a file itself. */
  readonly logins: readonly (string | undefined)[]
}

async function startGateway(data: 'at the gateway' | 'elsewhere'): Promise<Gateway> {
  const { host = '', port = '', user = '' } = storageServer('webhdfs')
  const logins: (string | undefined)[] = []
  const gateway = createServer((asked, answer) => {
    const { pathname, searchParams } = new URL(asked.url ?? '', `http://${host}:${port}`)
    const asksForData = pathname === '/data'
    if (asksForData) logins.push(asked.headers.authorization)
    if (asked.headers.authorization !== basic) answer.writeHead(401, { 'www-authenticate': 'Basic' }).end()
    else if (asksForData) forward(asked, answer, searchParams.get('to') ?? '')
    else {
      searchParams.set('user.name', user)
      forward(asked, answer, `http://${host}:${port}${pathname}?${searchParams.toString()}`, toOurs)
    }
  })
  const other = createServer((asked, answer) => {
    logins.push(asked.headers.authorization)
    forward(asked, answer, new URL(asked.url ?? '', 'http://other').searchParams.get('to') ?? '')
  })
  const toOurs = (location: string) =>
    `http://127.0.0.1:${addressOf(data === 'elsewhere' ? other : gateway).port}/data?to=${encodeURIComponent(location)}`
  for (const server of [gateway, other]) await listen(server)
  return {
    port: addressOf(gateway).port,
    logins,
    async [Symbol.asyncDispose]() {
      for (const server of [gateway, other]) {
        server.closeAllConnections()
        await once(server.close(), 'close')
      }
    },
  }
}

function forward(asked: IncomingMessage, answer: ServerResponse, url: string, change = (location: string) => location) {
  const { authorization: _, host: __, ...headers } = asked.headers
  const sent = request(url, { method: asked.method, headers, agent: false }, said => {
    const { location } = said.headers
    answer.writeHead(said.statusCode ?? 502, { ...said.headers, ...(location && { location: change(location) }) })
    said.pipe(answer)
  })
  asked.pipe(sent)
}

for (const data of ['at the gateway', 'elsewhere'] as const) {
  const goes = data === 'elsewhere' ? 'does not go along' : 'goes along'
  test(`webhdfs: the login ${goes} to files that are ${data}`, needs('webhdfs'), async () => {
    await using gateway = await startGateway(data)
    await using directory = await makeDirectory()
    const basepath = `webhdfs://127.0.0.1:${gateway.port}/test-${randomBytes(6).toString('hex')}`
    const block = { slug: 'remote-file-system', data: { basepath, settings: login } }
    const storage = await openWritableStorage(block, makeContext())
    await storage.writePath('flow.py', Buffer.from('x = 1'), signal)
    await storage.getDirectory(undefined, directory.path, signal)
    assert.deepEqual(await readTree(directory.path), { 'flow.py': 'x = 1' })
    const expected = data === 'elsewhere' ? undefined : basic
    assert.deepEqual(gateway.logins, [expected, expected])
  })
}
