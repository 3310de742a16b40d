// What a fresh clone does before anything runs: scripts/prepare under whatever Node the machine has.

import assert from 'node:assert/strict'
import { chmod, cp, mkdir, readFile, symlink, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { makeDirectory } from './support/directory.ts'
import { run } from './support/run.ts'

const root = join(import.meta.dirname, '..')

/** The files of this checkout as Git would carry them, with what is not committed yet; nothing that was installed. */
async function cloneInto(to: string): Promise<void> {
  const { code, stdout, stderr } = await run('git', ['ls-files', '-z', '-co', '--exclude-standard'], { cwd: root })
  assert.equal(code, 0, stderr)
  for (const file of stdout.split('\0').filter(name => name !== '')) {
    await mkdir(dirname(join(to, file)), { recursive: true })
    // A file that was deleted and is not committed yet is listed too.
    await cp(join(root, file), join(to, file)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
    })
  }
}

/** Only what scripts/prepare looks at. */
async function makeCheckout(to: string): Promise<void> {
  await cp(join(root, 'scripts'), join(to, 'scripts'), { recursive: true })
  await cp(join(root, 'package-lock.json'), join(to, 'package-lock.json'))
  await mkdir(join(to, 'tools', 'node'), { recursive: true })
  for (const file of ['package.json', 'package-lock.json']) {
    await cp(join(root, 'tools', 'node', file), join(to, 'tools', 'node', file))
  }
}

/** The same, with packages that npm has just installed, as far as the lists tell. */
async function makeInstalledCheckout(to: string): Promise<void> {
  await makeCheckout(to)
  await mkdir(join(to, 'node_modules'))
  await cp(join(root, 'node_modules', '.package-lock.json'), join(to, 'node_modules', '.package-lock.json'))
}

/** A folder of programs that is all of PATH: links to real ones, and scripts in place of others. */
async function makePath(folder: string, links: readonly string[], scripts: Readonly<Record<string, string>> = {}) {
  await mkdir(folder)
  for (const name of links) {
    const { stdout } = await run('sh', ['-c', `command -v ${name}`])
    await symlink(stdout.trim(), join(folder, name))
  }
  for (const [name, body] of Object.entries(scripts)) {
    await writeFile(join(folder, name), `#!/bin/sh\n${body}\n`)
    await chmod(join(folder, name), 0o755)
  }
  return folder
}

const TOOLS = ['sh', 'mkdir', 'rm', 'cat', 'sleep', 'cp', 'mv', 'readlink', 'rmdir'] as const

/** Brings what npm would, out of this checkout; so does the npm that comes along with Node. */
const npmFromHere = `[ "$1" = ci ] || exit 1
bring() {
  # As links, or where the disk is another, as copies.
  cp -al "$1/node_modules" . 2>/dev/null || cp -a "$1/node_modules" .
  rm -f node_modules/.ready
}
case $PWD in
  */tools/node/new) bring "${root}/tools/node" && rm node_modules/.bin/npm && cp "$0" node_modules/.bin/npm ;;
  *) bring "${root}" ;;
esac`

// That npm itself does it, with an empty home, is seen by .ci/run: everything once more takes minutes on a busy machine.
test('a fresh clone prepares itself once when two commands start at the same time', async () => {
  await using directory = await makeDirectory()
  const clone = join(directory.path, 'clone')
  await cloneInto(clone)
  const home = join(directory.path, 'home')
  await mkdir(home)
  const npm = await makePath(join(directory.path, 'bin'), [], { npm: npmFromHere })
  const inherited = (process.env.PATH ?? '').split(':').filter(folder => !folder.startsWith(root))
  const env = { ...process.env, HOME: home, PATH: [npm, ...inherited].join(':') }
  const start = () => run(join(clone, 'scripts', 'rigel'), ['--version'], { cwd: home, env, timeoutMs: 600_000 })
  const both = await Promise.all([start(), start()])

  for (const { code, stdout, stderr } of both) {
    assert.equal(code, 0, stderr)
    assert.match(stdout, /^\d+\.\d+\.\d+\n$/)
  }
  const said = both.map(({ stderr }) => stderr).join('')
  assert.equal(said.split('installing the packages').length, 2, said)
  const again = await start()
  assert.deepEqual([again.code, again.stderr], [0, ''])
})

const refusals = [
  {
    machine: 'Windows',
    system: 'MINGW64_NT-10.0',
    sentence: /^Rigel does not run on Windows itself; use it inside WSL/,
  },
  {
    machine: 'macOS',
    system: 'Darwin',
    sentence: /^Rigel needs Node\.js 24\.15 or newer on PATH \(found v20\.1\.0\); it/,
  },
  {
    machine: 'an unknown processor',
    system: 'Linux',
    sentence: /^Rigel needs Node\.js 24\.15 or newer on PATH \(found v20/,
  },
]

for (const { machine, system, sentence } of refusals) {
  test(`with an old Node on ${machine}, one sentence says what is needed`, async () => {
    await using directory = await makeDirectory()
    await makeCheckout(directory.path)
    const uname = `case $1 in -s) echo ${system} ;; *) echo riscv64 ;; esac`
    const PATH = await makePath(join(directory.path, 'bin'), TOOLS, { uname, node: 'echo v20.1.0', npm: 'exit 1' })
    const { code, stdout, stderr } = await run('/bin/sh', [join(directory.path, 'scripts', 'rigel')], { env: { PATH } })
    assert.deepEqual([code, stdout, stderr.split('\n').length], [1, '', 2])
    assert.match(stderr, sentence)
  })
}

test('without any Node and npm, one sentence says what is needed', async () => {
  await using directory = await makeDirectory()
  await makeCheckout(directory.path)
  const uname = 'case $1 in -s) echo Linux ;; *) echo x86_64 ;; esac'
  const PATH = await makePath(join(directory.path, 'bin'), TOOLS, { uname })
  const { code, stderr } = await run('/bin/sh', [join(directory.path, 'scripts', 'rigel')], { env: { PATH } })
  assert.equal(code, 1)
  assert.equal(
    stderr,
    'Rigel needs Node.js 24.15 or newer on PATH (found none), or npm of any version to fetch it with.\n',
  )
})

test('packages that npm has just put there are not installed again', async () => {
  await using directory = await makeDirectory()
  await makeInstalledCheckout(directory.path)
  const PATH = await makePath(join(directory.path, 'bin'), [...TOOLS, 'node'], {
    npm: 'echo npm was called >&2; exit 1',
  })
  const { stdout, stderr } = await run(join(directory.path, 'scripts', 'node'), ['-p', '1'], { env: { PATH } })
  assert.deepEqual([stdout, stderr], ['1\n', ''])
})

test('packages are installed again when the lock file asks for another version', async () => {
  await using directory = await makeDirectory()
  await makeInstalledCheckout(directory.path)
  const PATH = await makePath(join(directory.path, 'bin'), [...TOOLS, 'node'], { npm: 'echo "npm $1" >&2; exit 1' })
  const command = () => run(join(directory.path, 'scripts', 'node'), ['-p', '1'], { env: { PATH } })
  assert.equal((await command()).code, 0)

  const lock = join(directory.path, 'package-lock.json')
  await writeFile(lock, (await readFile(lock, 'utf8')).replace('"integrity": "sha512-', '"integrity": "sha512-other'))
  const later = new Date(Date.now() + 1000)
  await utimes(lock, later, later)
  const { code, stderr } = await command()
  assert.equal(code, 1)
  assert.match(stderr, /installing the packages of package-lock\.json\nnpm ci\nRigel could not install its packages/)
})

test('what a killed start has locked is taken over', async () => {
  await using directory = await makeDirectory()
  await makeInstalledCheckout(directory.path)
  const lock = join(directory.path, '.prepare.lock')
  await mkdir(lock)
  // Above the highest pid that Linux gives.
  await writeFile(join(lock, 'pid'), '4194305\n')
  const PATH = await makePath(join(directory.path, 'bin'), [...TOOLS, 'node'])
  const { code, stdout } = await run(join(directory.path, 'scripts', 'node'), ['-p', '1'], { env: { PATH } })
  assert.deepEqual([code, stdout], [0, '1\n'])
})

test('the command of a checkout works through a symlink from any directory, and keeps its PATH', async () => {
  await using directory = await makeDirectory()
  const link = join(directory.path, 'rigel')
  await symlink(join(root, 'scripts', 'rigel'), link)
  const { code, stdout } = await run(link, ['--version'], { cwd: '/' })
  assert.deepEqual([code, /^\d+\.\d+\.\d+\n$/.test(stdout)], [0, true])
  const PATH = '/usr/bin:/bin'
  const seen = await run(join(root, 'scripts', 'node'), ['-p', 'process.env.PATH'], { env: { PATH } })
  assert.equal(seen.stdout, `${PATH}\n`)
})
