import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { createServer as createTcpServer } from 'node:net'
import { Readable } from 'node:stream'
import test from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { makeMeter } from '../../src/storage/context.ts'
import { HttpClient } from '../../src/storage/http.ts'
import { HttpBody } from '../../src/storage/http-body.ts'
import { listen } from '../support/listen.ts'

const signal = new AbortController().signal

async function serve(listener: RequestListener) {
  const server = createServer(listener)
  const { port } = await listen(server)
  const meter = makeMeter()
  const http = new HttpClient({ connections: 2 }, { proxies: {}, meter })
  const origin = `http://127.0.0.1:${port}`
  const get = (path = '/', at = signal) => http.send({ method: 'GET', origin, path, headers: {} }, at)
  return {
    get,
    head: () => http.send({ method: 'HEAD', origin, path: '/', headers: {} }, signal),
    http,
    meter,
    async [Symbol.asyncDispose]() {
      await http.close()
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

test('a slow reader gets every byte of a fast server, and does not hold it all in memory', async () => {
  const bytes = randomBytes(20 * 1024 * 1024)
  await using place = await serve((_request, response) => response.end(bytes))
  const { body } = await place.get()
  const got: Uint8Array[] = []
  for await (const chunk of body) {
    got.push(chunk)
    await nextTurn()
  }
  assert.ok(Buffer.concat(got).equals(bytes))
})

test('a body whose next piece comes while it is being asked for does not hang', async () => {
  const pieces = ['one', 'two', 'three']
  const body: HttpBody = new HttpBody({
    pause: () => undefined,
    resume() {
      const piece = pieces.shift()
      if (piece === undefined) body.end()
      else body.push(Buffer.from(piece))
    },
    abort: reason => body.fail(reason),
  })
  const got: string[] = []
  for await (const chunk of body) got.push(Buffer.from(chunk).toString())
  assert.deepEqual(got, ['one', 'two', 'three'])
})

test('of a body without an end only what was asked for is gathered, and its connection is let go', async () => {
  const piece = Buffer.alloc(64 * 1024)
  let sent = 0
  let closed: Promise<unknown> = Promise.resolve()
  await using place = await serve((_request, response) => {
    closed = once(response, 'close')
    const more = () => {
      while (!response.destroyed && response.write(piece)) sent += piece.length
    }
    response.on('drain', more)
    more()
  })
  const bytes = await (await place.get()).body.bytes(10)
  assert.ok(bytes.length > 10 && bytes.length < 1024 * 1024, `${bytes.length} bytes`)
  await closed
  // What lies in the buffers of both ends counts as sent.
  assert.ok(sent < 32 * 1024 * 1024, `${sent} bytes`)
})

test('a connection that is cut in the middle of a body is an error, read either way', async () => {
  await using place = await serve((_request, response) => {
    response.writeHead(200, { 'content-length': '100' })
    response.write('half')
    setTimeout(() => response.destroy(), 20)
  })
  await assert.rejects(async () => (await place.get()).body.bytes(), { name: 'SocketError' })
  await assert.rejects(
    async () => {
      for await (const chunk of (await place.get()).body) assert.equal(Buffer.from(chunk).toString(), 'half')
    },
    { name: 'SocketError' },
  )
})

test('an abort ends a request that waits for its answer', async () => {
  await using place = await serve(() => undefined)
  const controller = new AbortController()
  setTimeout(() => controller.abort(new Error('stopped')), 50)
  await assert.rejects(place.get('/', controller.signal), /stopped/)
})

test('a body that is not wanted lets its connection go', async () => {
  await using place = await serve((_request, response) => response.end('x'.repeat(10_000_000)))
  for (let at = 0; at < 5; at++) (await place.get()).body.cancel()
  assert.equal((await place.get()).status, 200)
  assert.equal(place.meter.requests, 6)
})

test('more requests than connections wait for one, and one that is stopped while it waits leaves the others theirs', async () => {
  let underWay = 0
  let most = 0
  await using place = await serve((_request, response) => {
    most = Math.max(most, ++underWay)
    setTimeout(() => {
      underWay--
      response.end('done')
    }, 20)
  })
  const controller = new AbortController()
  const answers = Array.from({ length: 9 }, async (_, at) =>
    (await place.get('/', at === 5 ? controller.signal : signal)).body.text(),
  )
  controller.abort(new Error('stopped'))
  const ends = await Promise.allSettled(answers)
  assert.deepEqual(
    ends.map(({ status }) => status),
    Array.from({ length: 9 }, (_, at) => (at === 5 ? 'rejected' : 'fulfilled')),
  )
  assert.equal(most, 2)
})

test('many HEAD requests share the connections', async () => {
  const sockets = new Set<unknown>()
  await using place = await serve((request, response) => {
    sockets.add(request.socket)
    response.writeHead(200, { 'content-length': '7' }).end()
  })
  for (let at = 0; at < 20; at++) {
    const response = await place.head()
    assert.equal(response.header('content-length'), '7')
    assert.equal((await response.body.bytes()).length, 0)
  }
  assert.equal(sockets.size, 1)
})

test('a server that answers HEAD with a body, which it may not, is understood', async () => {
  const text = 'HTTP/1.1 200 OK\r\ncontent-length: 400\r\nconnection: keep-alive\r\n\r\n'
  const server = createTcpServer(socket => {
    socket.on('error', () => undefined)
    socket.on('data', () => socket.write(`${text}${'body'.repeat(100)}`))
  })
  const { port } = await listen(server)
  const http = new HttpClient({ connections: 2 }, { proxies: {} })
  for (let at = 0; at < 20; at++) {
    const request = { method: 'HEAD', origin: `http://127.0.0.1:${port}`, path: '/', headers: {} }
    const { status, body } = await http.send(request, signal)
    assert.equal(status, 200)
    assert.equal((await body.bytes()).length, 0)
  }
  await http.close()
  server.close()
  await once(server, 'close')
})

test('a file that was to be sent is closed when the request is stopped before it has a connection', async () => {
  await using place = await serve(() => undefined)
  const body = Readable.from(['never read'])
  const request = { method: 'PUT', origin: 'http://127.0.0.1:9', path: '/', headers: {}, body }
  await assert.rejects(place.http.send(request, AbortSignal.abort(new Error('stopped'))), /stopped/)
  assert.equal(body.destroyed, true)
})
