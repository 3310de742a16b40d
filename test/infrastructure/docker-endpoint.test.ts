// Which engine is meant, and how it is reached: by a socket, a context, TCP with TLS, ssh. Each against a real engine.

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import test from 'node:test'
import { promisify } from 'node:util'
import { parseHost } from '../../src/infrastructure/docker-endpoint.ts'
import { InfrastructureError } from '../../src/infrastructure/infrastructure.ts'
import { makeAuthority } from '../support/certificates.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { OwnEngine } from './docker-engine.ts'
import { type DockerSubject, dockerHost, makeDockerSubject, unstopped } from './docker-subject.ts'

const run = promisify(execFile)
const options = { ...needs('docker'), timeout: 120_000 }

/** Runs something there with its output, and gives the handle's identifier. */
async function proveRun(subject: DockerSubject): Promise<string> {
  const { infrastructure } = subject
  const handle = await infrastructure.submit(await subject.spec('echo out; exit 3'), unstopped)
  const lines: string[] = []
  const exit = await infrastructure.wait(handle, batch => void lines.push(...batch), unstopped)
  assert.equal(exit.kind === 'exited' && exit.statusCode, 3)
  assert.deepEqual(lines, ['out'])
  await infrastructure.kill(handle, 0, unstopped)
  return handle.identifier
}

async function refusal(subject: DockerSubject): Promise<InfrastructureError> {
  const error: unknown = await subject.infrastructure.submit(await subject.spec('true'), unstopped).catch(e => e)
  assert.ok(error instanceof InfrastructureError, `instead: ${String(error)}`)
  assert.equal(error.blame, 'host', 'the run is given back')
  return error
}

test('contexts that the docker command has made are understood: by name, and the current one', options, async () => {
  await using directory = await makeDirectory()
  const docker = (...args: readonly string[]) =>
    run('docker', ['--config', directory.path, 'context', ...args], { env: { PATH: process.env.PATH, HOME: '/none' } })
  await docker('create', 'tests', '--docker', `host=${dockerHost}`)
  {
    await using subject = await makeDockerSubject({
      environment: { DOCKER_CONFIG: directory.path, DOCKER_CONTEXT: 'tests' },
    })
    assert.match(await proveRun(subject), /^http\+docker:\/\/localhost:[0-9a-f]{64}$/)
  }
  await docker('use', 'tests')
  {
    await using subject = await makeDockerSubject({ environment: { DOCKER_CONFIG: directory.path } })
    await proveRun(subject)
  }
  await using subject = await makeDockerSubject({
    environment: { DOCKER_CONFIG: directory.path, DOCKER_CONTEXT: 'none' },
  })
  assert.match((await refusal(subject)).message, /Docker context "none" does not exist/)
})

test('an engine behind TLS is spoken to by those who can prove themselves', {
  ...options,
  ...needs('docker', 'root'),
}, async () => {
  await using directory = await makeDirectory()
  const authority = makeAuthority()
  const path = (name: string) => join(directory.path, name)
  for (const who of ['server', 'client']) {
    const { certificate, key } = authority.issue()
    await mkdir(path(who))
    await writeFile(path(`${who}/cert.pem`), certificate)
    await writeFile(path(`${who}/key.pem`), key, { mode: 0o600 })
    await writeFile(path(`${who}/ca.pem`), authority.certificate)
  }
  const port = await freePort()
  const files = `--tlscacert ${path('server/ca.pem')} --tlscert ${path('server/cert.pem')} --tlskey ${path('server/key.pem')}`
  const flags = `--tlsverify ${files} -H tcp://127.0.0.1:${port}`
  await using engine = await OwnEngine.start({ name: 'secure', subnet: '172.30.91', flags })
  const environment = { DOCKER_HOST: `tcp://127.0.0.1:${port}`, DOCKER_TLS_VERIFY: '1' }
  {
    await using subject = await engine.subject({ ...environment, DOCKER_CERT_PATH: path('client') })
    assert.match(await proveRun(subject), new RegExp(`^https://127.0.0.1:${port}:[0-9a-f]{64}$`))
  }
  // Nobody's certificate, then an authority that has not signed the server's.
  await mkdir(path('nobody'))
  await copyFile(path('client/ca.pem'), path('nobody/ca.pem'))
  {
    await using subject = await engine.subject({ ...environment, DOCKER_CERT_PATH: path('nobody') })
    assert.match(
      (await refusal(subject)).message,
      /certificate required|bad certificate|alert|ECONNRESET|socket hang up/,
    )
  }
  await writeFile(path('client/ca.pem'), makeAuthority().certificate)
  await using subject = await engine.subject({ ...environment, DOCKER_CERT_PATH: path('client') })
  assert.match((await refusal(subject)).message, /certificate/)
})

test('an engine behind ssh is reached through one tunnel, which is opened again when it breaks', {
  ...options,
  ...needs('docker', 'root', 'sshd'),
}, async () => {
  await using directory = await makeDirectory()
  await using sshd = await startSshd(directory.path)
  const { sshCommand } = sshd
  const environment = { DOCKER_HOST: `ssh://root@127.0.0.1:${sshd.port}${dockerHost.slice('unix://'.length)}` }
  await using subject = await makeDockerSubject({ environment, sshCommand })
  const identifiers = await Promise.all([proveRun(subject), proveRun(subject), proveRun(subject)])
  assert.match(identifiers[0], /^http\+docker:\/\/ssh:[0-9a-f]{64}$/)
  assert.equal(await sshd.connections(), 1)
  await sshd.cut()
  await proveRun(subject)
  assert.equal(await sshd.connections(), 2)
  await using stranger = await makeDockerSubject({
    environment: { DOCKER_HOST: environment.DOCKER_HOST.replace('root@', 'nobody@') },
    sshCommand,
  })
  assert.match((await refusal(stranger)).message, /Could not reach the Docker engine at ssh:.*Permission denied/s)
})

/** A real sshd on the loopback that knows one key of root's, and an ssh command that has it. */
async function startSshd(folder: string) {
  const port = await freePort()
  const path = (name: string) => join(folder, name)
  await mkdir('/run/sshd', { recursive: true })
  for (const key of ['host', 'user']) await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', path(key)])
  await copyFile(path('user.pub'), path('authorized'))
  const config = `Port ${port}\nListenAddress 127.0.0.1\nHostKey ${path('host')}\nAuthorizedKeysFile ${path('authorized')}
StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nPidFile none\nLogLevel INFO\n`
  await writeFile(path('sshd.conf'), config)
  await writeFile(path('known'), `[127.0.0.1]:${port} ${await readFile(path('host.pub'), 'utf8')}`)
  await writeFile(
    path('ssh.conf'),
    `IdentityFile ${path('user')}\nIdentitiesOnly yes\nUserKnownHostsFile ${path('known')}\nStrictHostKeyChecking yes\n`,
  )
  const child = spawn('/usr/sbin/sshd', ['-D', '-f', path('sshd.conf'), '-E', path('log')], { stdio: 'ignore' })
  const exited = once(child, 'exit')
  const log = () => readFile(path('log'), 'utf8').catch(() => '')
  await until(async () => (await log()).includes('Server listening'))
  return {
    port,
    sshCommand: ['ssh', '-F', path('ssh.conf')],
    connections: async () => (await log()).split('Accepted publickey').length - 1,
    /** Ends the sessions, as a network does that goes away. */
    cut: async () => {
      const { stdout } = await run('ps', ['-o', 'pid=', '--ppid', String(child.pid)])
      for (const pid of stdout.split('\n').filter(line => line.trim() !== '')) process.kill(Number(pid), 'SIGKILL')
    },
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM')
      await exited
    },
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address !== null ? address.port : 0
}

const hosts: readonly (readonly [string, string])[] = [
  ['unix:///run/d.sock', 'http+docker://localhost'],
  ['tcp://engine:2375', 'http://engine:2375'],
  ['engine', 'http://engine:2375'],
  ['tcp://[::1]:99', 'http://[::1]:99'],
  ['https://engine', 'https://engine:2376'],
  ['ssh://me@engine', 'http+docker://ssh'],
]

for (const [host, baseUrl] of hosts) {
  test(`${host} is ${baseUrl} in an infrastructure_pid`, () => {
    assert.equal(parseHost(host, undefined).baseUrl, baseUrl)
  })
}

test('a host that cannot be understood is refused without its password', () => {
  for (const host of ['npipe:////./pipe/docker', 'ssh://-oProxyCommand=x', 'ftp://me:hush@engine']) {
    assert.throws(
      () => parseHost(host, undefined),
      (error: unknown) =>
        error instanceof Error && /cannot be understood/.test(error.message) && !/hush/.test(error.message),
    )
  }
})
