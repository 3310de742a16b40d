// Code and files reach a container as its own user's, without a mount and without touching the image's files.

import assert from 'node:assert/strict'
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { makeDockerSubject, type SubjectOptions, unstopped } from './docker-subject.ts'

const options = { ...needs('docker'), timeout: 90_000 }

/** Lines of a script that runs with a workspace (`hello.txt`, `bin/tool`, a link, a folder) and the file `secret.json`. */
async function runWithCode(script: string, subjectOptions: SubjectOptions = {}): Promise<string[]> {
  await using subject = await makeDockerSubject(subjectOptions)
  await using directory = await makeDirectory()
  const workspace = join(directory.path, 'code')
  await mkdir(join(workspace, 'bin'), { recursive: true })
  await chmod(workspace, 0o700)
  await writeFile(join(workspace, 'hello.txt'), 'hello')
  await writeFile(join(workspace, 'bin', 'tool'), '#!/bin/sh\necho tool runs\n', { mode: 0o755 })
  await symlink('hello.txt', join(workspace, 'link'))
  await writeFile(join(workspace, `${'long-'.repeat(30)}name`), 'long')
  const spec = await subject.spec(script, {
    workspace,
    files: { 'secret.json': '{"a":1}' },
    words: [
      { in: 'files', path: 'secret.json' },
      { in: 'workspace', path: '' },
    ],
  })
  const lines: string[] = []
  const handle = await subject.infrastructure.submit(spec, unstopped)
  await subject.infrastructure.wait(handle, batch => void lines.push(...batch), unstopped)
  return lines
}

const look =
  'pwd; stat -c "%a %u:%g" . hello.txt bin/tool "$1"; ./bin/tool; cat link; echo; cat long-*; echo; cat "$1"; echo; touch new && echo may write'
const seen = (owner: string) => [
  '/rigel/workspace',
  ...['755', '644', '755', '600'].map(mode => `${mode} ${owner}`),
  'tool runs',
  'hello',
  'long',
  '{"a":1}',
  'may write',
]

test('for an image whose user is root, code and files belong to root', options, async () => {
  assert.deepEqual(await runWithCode(look), seen('0:0'))
})

test('for a numeric user and group, code and files are theirs', options, async () => {
  const settings = { container_create_kwargs: { user: '1234:2345' } }
  assert.deepEqual(await runWithCode(look, { settings }), seen('1234:2345'))
})

test('for a user by name, the image says who that is, not the machine', options, async () => {
  await using subject = await makeDockerSubject()
  // An image with a user of its own, made from a container without a registry or a build.
  const image = `rigel.test/with-user:${subject.agentPrefix}`
  const { makeImageWithUser, removeImage } = await import('./docker-image.ts')
  await makeImageWithUser(image)
  try {
    assert.deepEqual(await runWithCode(`id -un; ${look}`, { settings: { image } }), ['flow', ...seen('4321:5432')])
  } finally {
    await removeImage(image)
  }
})

test('a working directory of the block is kept, and the code stays in the workspace', options, async () => {
  const settings = { container_create_kwargs: { working_dir: '/tmp' } }
  assert.deepEqual(await runWithCode('pwd; cat "$2/hello.txt"', { settings }), ['/tmp', 'hello'])
})

test('a container whose root is read-only gets its code all the same', options, async () => {
  const settings = { container_create: { HostConfig: { ReadonlyRootfs: true } } }
  const lines = await runWithCode('pwd; cat hello.txt; echo; touch /x 2>/dev/null || echo read-only', { settings })
  assert.deepEqual(lines, ['/rigel/workspace', 'hello', 'read-only'])
})

test('without code, the working directory is that of the image', options, async () => {
  await using subject = await makeDockerSubject()
  const lines: string[] = []
  const handle = await subject.infrastructure.submit(await subject.spec('pwd; ls -d /rigel 2>&1 | wc -l'), unstopped)
  await subject.infrastructure.wait(handle, batch => void lines.push(...batch), unstopped)
  assert.equal(lines[0], '/')
})
