// What moves and what stays at a terminal: the real command on a pseudo-terminal that util-linux's `script` gives it, typed to by
// its keyboard.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { makeBucket } from '../storage/s3-server.ts'
import { makeDirectory } from '../support/directory.ts'
import { cleanEnvironment } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { cli } from './support.ts'

const files = 60
const interrupt = '\u0003'

interface Seen {
  readonly code: number | null
  /** All that the terminal was sent. */
  readonly screen: string
}

interface Sight {
  readonly columns?: number
  readonly env?: Readonly<Record<string, string>>
  /** Where stdout goes instead of the terminal. */
  readonly stdout?: string
  /** Typed as soon as this is on the screen. */
  readonly typed?: { readonly after: RegExp; readonly text: string }
  readonly flags?: readonly string[]
  /** Milliseconds that each piece of an answer of the server takes. */
  readonly delayMs?: number
}

/** A bucket of 60 files behind a slow way, and `rigel fetch to` of it at a terminal. */
async function openScene() {
  const stack = new AsyncDisposableStack()
  const { path } = stack.use(await makeDirectory())
  const bucket = stack.use(await makeBucket('s3'))
  for (let at = 0; at < files; at++) await bucket.put(`flows/file${at}.py`, 'x'.repeat(1000))
  await writeFile(
    join(path, 'block.json'),
    JSON.stringify({
      block_type_slug: 's3',
      data: {
        bucket_path: `${bucket.bucket}/flows`,
        aws_access_key_id: bucket.accessKeyId,
        aws_secret_access_key: bucket.secretAccessKey,
      },
    }),
  )
  const { hostname, port } = new URL(bucket.endpoint)
  return {
    path,
    left: async () => (await readdir(path)).filter(name => name === 'to' || name.includes('partial')),
    async fetch({ columns = 80, env = {}, stdout, typed, flags = [], delayMs = 150 }: Sight = {}): Promise<Seen> {
      let asked = 0
      // What is typed comes in the middle, however long it takes: the rest is never answered.
      const holdRequest = () => (typed && ++asked > files / 3 ? new Promise(() => undefined) : undefined)
      await using proxy = await startTcpProxy({ host: hostname, port: Number(port), delayMs, holdRequest })
      const words = [process.execPath, cli, 'fetch', 'to', '--block-file', 'block.json', ...flags]
      const command = words.map(word => `'${word}'`).join(' ') + (stdout === undefined ? '' : ` > ${stdout}`)
      const child = spawn('script', ['-qec', `stty cols ${columns} -echo; exec ${command}`, '/dev/null'], {
        cwd: path,
        env: {
          ...cleanEnvironment(),
          HOME: '/nonexistent',
          PREFECT_HOME: join(path, 'prefect'),
          RIGEL_CACHE_DIR: join(path, 'cache'),
          AWS_ENDPOINT_URL: `http://127.0.0.1:${proxy.port}`,
          SHELL: '/bin/sh',
          TERM: 'xterm',
          ...env,
        },
        stdio: ['pipe', 'pipe', 'inherit'],
      })
      let screen = ''
      let hasTyped = false
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        screen += text
        if (!typed || hasTyped || !typed.after.test(screen)) return
        hasTyped = true
        child.stdin.write(typed.text)
      })
      const [code] = await once(child, 'close')
      return { code: typeof code === 'number' ? code : null, screen }
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

/** Each state of the line, and what stands there at the end. */
function readLines(screen: string): { readonly drawn: readonly string[]; readonly end: string } {
  const parts = screen.replaceAll('\r\n', '\n').split('\r')
  return { drawn: parts.slice(1, -1).map(part => part.trimEnd()), end: parts.at(-1) ?? '' }
}

test('at a terminal a bar moves, and goes when all is there', needs('s3', 'terminal'), async () => {
  await using scene = await openScene()
  const { code, screen } = await scene.fetch({ env: { NO_COLOR: '1' } })
  assert.equal(code, 0, screen)
  const { drawn, end } = readLines(screen)
  const bars = new Set(drawn.filter(line => /^\[=* *\] \d+\/60 files, .* requests$/.test(line)))
  assert.ok(bars.size >= 2, `the bar did not move: ${JSON.stringify(screen)}`)
  assert.match(end, /^fetched 60 files \(58\.6 KiB\) into .*\n$/)
  // Nothing that steers a terminal but the return to the line's beginning.
  assert.doesNotMatch(screen.replaceAll(/[\r\n]/g, ''), /\p{Cc}/u)
})

test('on a narrow terminal the line stays one line', needs('s3', 'terminal'), async () => {
  await using scene = await openScene()
  const { code, screen } = await scene.fetch({ columns: 24 })
  assert.equal(code, 0, screen)
  const { drawn } = readLines(screen)
  assert.ok(
    drawn.some(line => /^\d+\/60 files/.test(line)),
    JSON.stringify(screen),
  )
  for (const line of screen.split(/[\r\n]/).filter(line => !line.startsWith('fetched'))) {
    assert.ok(line.length < 24, `${line.length} columns: ${JSON.stringify(line)}`)
  }
})

test('with --output json stdout holds JSON alone, also while a bar moves', needs('s3', 'terminal'), async () => {
  await using scene = await openScene()
  const { code, screen } = await scene.fetch({ stdout: 'out.json', flags: ['--output', 'json'] })
  assert.equal(code, 0, screen)
  assert.match(screen, /\/60 files/)
  assert.partialDeepStrictEqual(JSON.parse(await readFile(join(scene.path, 'out.json'), 'utf8')), {
    files: 60,
    bytes: 60_000,
  })
})

test(
  'Ctrl-C in the middle leaves a clean line, no folder, and the exit code of the signal',
  needs('s3', 'terminal'),
  async () => {
    await using scene = await openScene()
    const { code, screen } = await scene.fetch({ typed: { after: /\/60 files/, text: interrupt } })
    assert.equal(code, 130, screen)
    assert.deepEqual(await scene.left(), [])
    assert.equal(readLines(screen).end, '', JSON.stringify(screen))
    assert.doesNotMatch(screen, /error|Error|fetched/)
  },
)
