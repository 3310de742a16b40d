// What `npm pack` makes, installed elsewhere: compiled JavaScript that needs nothing of the checkout.

import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { makeDirectory } from './support/directory.ts'
import { run } from './support/run.ts'

const root = join(import.meta.dirname, '..')
/** What takes half a minute alone, and much longer where all cores are busy. */
const timeoutMs = 600_000

async function list(folder: string): Promise<readonly string[]> {
  return (await readdir(folder, { recursive: true })).sort()
}

function isAsset(name: string): boolean {
  return /\.[a-z]+$/.test(name) && !name.endsWith('.ts')
}

test('the packed package, installed in an empty folder, is a command that runs', async t => {
  await using directory = await makeDirectory()
  const home = join(directory.path, 'home')
  const env = { ...process.env, HOME: home, npm_config_ignore_scripts: 'false' }

  const packed = await run('npm', ['pack', '--silent', '--pack-destination', directory.path], {
    cwd: root,
    env,
    timeoutMs,
  })
  assert.equal(packed.code, 0, packed.stdout + packed.stderr)
  const tarball = join(directory.path, packed.stdout.trim().split('\n').at(-1) ?? '')
  const options = ['--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error']
  const installed = await run('npm', ['install', ...options, '--prefix', directory.path, tarball], { env, timeoutMs })
  assert.equal(installed.code, 0, installed.stderr)
  const rigel = join(directory.path, 'node_modules', '.bin', 'rigel')
  const own = { PATH: `${join(process.execPath, '..')}:/usr/bin:/bin`, HOME: home }

  await t.test('it says its version', async () => {
    const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
    const { code, stdout, stderr } = await run(rigel, ['--version'], { cwd: directory.path, env: own })
    assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: `${version}\n`, stderr: '' })
  })

  await t.test('it finds its default settings', async () => {
    const { code, stderr } = await run(rigel, ['config', 'view'], { cwd: directory.path, env: own })
    assert.deepEqual({ code, stderr }, { code: 0, stderr: '' })
  })

  await t.test('it serves, launches and reports: a deployment runs in its own server and agent', async () => {
    const flows = join(directory.path, 'flows')
    await mkdir(flows)
    const script = join(flows, 'hello.sh')
    await writeFile(script, '#!/bin/sh\necho hello from the package\n', { mode: 0o755 })
    const deployment = {
      flow: 'hello',
      name: 'packed',
      queue: 'packed',
      path: flows,
      entrypoint: './hello.sh',
    }
    const file = join(directory.path, 'hello.yaml')
    // JSON is YAML.
    await writeFile(file, JSON.stringify(deployment))
    const args = ['dev', '--once', '--home', join(directory.path, 'dev'), file]
    const { code, stdout, stderr } = await run(rigel, args, { cwd: directory.path, env: own })
    assert.equal(code, 0, stdout + stderr)
    assert.match(stdout, /hello from the package/)
    assert.match(stdout, /Completed\s+hello\/packed/)
  })

  await t.test('it holds every file that the sources find beside themselves, and no source', async () => {
    const inSource = (await list(join(root, 'src'))).filter(isAsset)
    const inPackage = await list(join(directory.path, 'node_modules', 'rigel-agent', 'dist'))
    assert.deepEqual(
      inPackage.filter(name => isAsset(name) && !name.endsWith('.js')),
      inSource,
    )
    assert.deepEqual(
      inPackage.filter(name => name.endsWith('.ts')),
      [],
    )
  })
})

test('a Node that is too old is told so in one sentence', async () => {
  await using directory = await makeDirectory()
  const pretend = `Object.defineProperty(process.versions, 'node', { value: '20.9.0' })
    Object.defineProperty(process, 'version', { value: 'v20.9.0' })`
  const env = {
    PATH: process.env.PATH,
    HOME: directory.path,
    NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(pretend)}`,
  }
  const { code, stderr } = await run(process.execPath, [join(root, 'bin', 'rigel.js')], { env })
  assert.deepEqual({ code, stderr }, { code: 1, stderr: 'Rigel needs Node.js 24.15 or newer, and this is v20.9.0.\n' })
})
