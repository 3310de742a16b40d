import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { readFieldFlags } from '../../src/commands/block-fields.ts'
import { checkBlock } from '../../src/commands/block-schema.ts'
import { maskSecrets } from '../../src/commands/block-secrets.ts'
import { describeBlock } from '../../src/commands/deployment-infrastructure.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { openServer, runCli, type TestServer } from './support.ts'

const signal = new AbortController().signal
const secret = 'hush-hush-4711'

for (const which of ['embedded', 'prefect2'] as const) {
  const requirement = which === 'prefect2' ? (['prefect2'] as const) : []
  const { skip } = needs(...requirement)
  let server: TestServer
  if (!skip) {
    before(async () => {
      server = await openServer(which)
    })
    after(async () => await server[Symbol.asyncDispose]())
  }

  async function makeScene() {
    const directory = await makeDirectory()
    const env = { PREFECT_API_URL: server.apiUrl, PREFECT_HOME: join(directory.path, 'prefect') }
    return {
      write: (name: string, text: string) => writeFile(join(directory.path, name), text),
      rigel: async (...args: string[]) => {
        const ended = await runCli(args, { env, cwd: directory.path })
        assert.ok(!(ended.stdout + ended.stderr).includes(secret), 'a secret is shown')
        return ended
      },
      tell: (input: string, ...args: string[]) => runCli(args, { env, cwd: directory.path, input }),
      [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
    }
  }

  test(
    `${which}: a block is created, listed, shown without its secrets, replaced and deleted`,
    needs(...requirement),
    async () => {
      await using scene = await makeScene()
      await scene.write('s3.json', JSON.stringify({ bucket_path: 'b/flows', aws_secret_access_key: secret }))
      await scene.write('key', `${secret}\n`)
      const types = await scene.rigel('block', 'type', 'ls')
      assert.match(types.stdout, /^local-file-system +Local File System$/m)
      const made = await scene.rigel('block', 'create', 's3', '--name', 'mine', '-f', 's3.json')
      assert.equal(made.code, 0, made.stderr)
      const again = await scene.rigel('block', 'create', 's3', '--name', 'mine', '-f', 's3.json')
      assert.deepEqual([again.code, /exists already/.test(again.stderr)], [1, true])
      const fields = ['--field', 'bucket_path=b/other', '--field', 'aws_secret_access_key=@key']
      const replaced = await scene.rigel('block', 'create', 's3', '--name', 'mine', ...fields, '--overwrite')
      assert.equal(replaced.code, 0, replaced.stderr)
      const stored = await server.client.readBlockDocumentByName('s3', 'mine', signal)
      assert.deepEqual(stored?.data, { bucket_path: 'b/other', aws_secret_access_key: secret })
      assert.match((await scene.rigel('block', 'ls')).stdout, /^s3\/mine /m)
      assert.match((await scene.rigel('block', 'inspect', 's3/mine')).stdout, /^aws_secret_access_key +\*+$/m)
      assert.match(
        (await scene.rigel('block', 'inspect', 's3/mine', '--output', 'json')).stdout,
        /"bucket_path": "b\/other"/,
      )
      assert.equal((await scene.rigel('block', 'delete', 's3/mine')).code, 0)
      assert.equal((await scene.rigel('block', 'inspect', 's3/mine')).code, 1)
    },
  )

  test(
    `${which}: what the schema of the type does not take is refused before it is sent`,
    needs(...requirement),
    async () => {
      await using scene = await makeScene()
      await scene.write('wrong.json', JSON.stringify({ bucket_path: ['x'], aws_secret_access_key: secret }))
      for (const [args, words] of [
        [['s3', '-f', 'wrong.json'], /field "bucket_path" must be string/],
        [['s3', '--field', 'aws_access_key_id=@wrong.json'], /field "bucket_path" is missing/],
        [['s3', '--field', 'bucket=x'], /has no field "bucket"/],
        [
          ['s3', '--bucket-pth', 'x'],
          /has no field "bucket_pth".*Did you mean "bucket_path"\? It has: .*aws_access_key_id/s,
        ],
        [['smb', '--share-path', '/a', '--smb-host', 'h', '--smb-port', 'many'], /field "smb_port" must be integer/],
        [['s4', '--field', 'bucket=x'], /knows no block type "s4"/],
        [['s3', '-f', 'missing.json'], /Could not read missing\.json/],
      ] as const) {
        const { code, stderr } = await scene.rigel('block', 'create', ...args, '--name', 'wrong')
        assert.equal(code, 1, stderr)
        assert.match(stderr, words)
      }
      assert.equal(await server.client.readBlockDocumentByName('s3', 'wrong', signal), undefined)
    },
  )

  test(
    `${which}: every field is a flag, with dashes or underscores; a secret comes from a file or standard input`,
    needs(...requirement),
    async () => {
      await using scene = await makeScene()
      await scene.write('key', `${secret}\n`)
      const fields = [
        '--share-path',
        '/SHARE/flows',
        '--smb_host=files',
        '--smb-port',
        '4450',
        '--smb-username',
        '@key',
      ]
      const made = await scene.rigel('block', 'create', 'smb', '--name', 'flags', ...fields, '--smb-password', '@key')
      assert.equal(made.code, 0, made.stderr)
      const again = await scene.tell(`${secret}\n`, 'block', 'create', 'secret', '--name', 'told', '--value', '-')
      assert.equal(again.code, 0, again.stderr)
      const shown = await scene.rigel(
        'block',
        'create',
        'smb',
        '--name',
        'shown',
        ...fields,
        '--smb-password',
        'plain-4712',
      )
      assert.equal(shown.code, 2)
      assert.match(shown.stderr, /Field "smb_password" is a secret/)
      assert.ok(!shown.stderr.includes('plain-4712'))
      const stored = await server.client.readBlockDocumentByName('smb', 'flags', signal)
      const data = { share_path: '/SHARE/flows', smb_host: 'files', smb_port: 4450 }
      assert.deepEqual(stored?.data, { ...data, smb_username: secret, smb_password: secret })
      assert.deepEqual((await server.client.readBlockDocumentByName('secret', 'told', signal))?.data, { value: secret })
      assert.equal(await server.client.readBlockDocumentByName('smb', 'shown', signal), undefined)
    },
  )

  test(
    `${which}: what protocols take in \`settings\` is shown without its secrets`,
    needs(...requirement),
    async () => {
      await using scene = await makeScene()
      const settings = { username: 'rigel', passphrase: secret, acct: secret, headers: { Cookie: secret } }
      await scene.write('sftp.json', JSON.stringify({ basepath: 'sftp://host/srv/flows', settings }))
      const made = await scene.rigel('block', 'create', 'remote-file-system', '--name', 'key', '-f', 'sftp.json')
      assert.equal(made.code, 0, made.stderr)
      const shown = await scene.rigel('block', 'inspect', 'remote-file-system/key', '--output', 'json')
      assert.match(shown.stdout, /"username": "rigel"/)
      const stored = await server.client.readBlockDocumentByName('remote-file-system', 'key', signal)
      assert.deepEqual(stored?.data?.settings, settings)
      assert.ok(stored && !JSON.stringify(describeBlock(stored)).includes(secret), 'a secret is in the deployment file')
    },
  )

  test(`${which}: a block refers to another by name`, needs(...requirement), async () => {
    await using scene = await makeScene()
    await scene.write('password', secret)
    const registry = ['--field', 'username=u', '--field', 'password=@password', '--field', 'registry_url=reg.example']
    const first = await scene.rigel('block', 'create', 'docker-registry', '--name', 'reg', ...registry)
    assert.equal(first.code, 0, first.stderr)
    const reference = `image_registry={"$ref": "docker-registry/reg"}`
    const made = await scene.rigel('block', 'create', 'docker-container', '--name', 'box', '--field', reference)
    assert.equal(made.code, 0, made.stderr)
    const stored = await server.client.readBlockDocumentByName('docker-container', 'box', signal)
    assert.deepEqual(stored?.data?.image_registry, { username: 'u', password: secret, registry_url: 'reg.example' })
    assert.equal((await scene.rigel('block', 'inspect', 'docker-container/box')).code, 0)
  })
}

test('a secret field is not taken from the command line', async () => {
  const schema = { properties: { key: { type: 'string' } }, secret_fields: ['key', 'table.*'] }
  await assert.rejects(readFieldFlags([`key=${secret}`], schema), (error: Error) => {
    assert.match(error.message, /Field "key" is a secret/)
    assert.doesNotMatch(error.message, new RegExp(secret))
    return true
  })
  await assert.rejects(readFieldFlags([`table={"a":"${secret}"}`], schema), { message: /"table" is a secret/ })
})

test('a field is read as its schema says', async () => {
  const schema = { properties: { text: { type: 'string' }, port: { type: 'integer' } } }
  const fields = await readFieldFlags(['text=8', 'port=8', 'other={"a":[1]}', 'plain=x=y'], schema)
  assert.deepEqual(fields, { text: '8', port: 8, other: { a: [1] }, plain: 'x=y' })
  const optional = { properties: { text: { anyOf: [{ type: 'string' }, { type: 'null' }] } } }
  assert.deepEqual(await readFieldFlags(['text=8'], optional), { text: '8' })
  const secret = { properties: { value: { anyOf: [{ type: 'string' }, {}], format: 'password' } } }
  assert.deepEqual(await readFieldFlags(['value=8'], secret), { value: '8' })
  await assert.rejects(readFieldFlags(['a-b=1', 'a_b=2'], {}), { message: /"a_b" is given twice/ })
})

test('null stands for a field that is not there, and no value is in an error', () => {
  const schema = { type: 'object', properties: { n: { type: 'integer' }, s: { enum: ['a'] } }, required: ['n'] }
  checkBlock('x', { n: 1, s: null }, schema)
  assert.throws(
    () => checkBlock('x', { n: secret, s: secret }, schema),
    (error: Error) => {
      assert.match(error.message, /field "n" must be integer; field "s" must be equal to one of the allowed values/)
      assert.doesNotMatch(error.message, new RegExp(secret))
      return true
    },
  )
})

test('schemas of Prefect 3 are read: choices, and definitions that they do not hold', () => {
  const schema = {
    type: 'object',
    properties: {
      port: { anyOf: [{ type: 'integer' }, { type: 'null' }] },
      value: { anyOf: [{ type: 'string', format: 'password' }, { $ref: '#/definitions/JsonValue' }] },
      nested: { $ref: '#/definitions/Nested' },
    },
    definitions: { Nested: { type: 'object', properties: { n: { type: 'integer' } } } },
  }
  checkBlock('x', { port: 1, value: { any: ['thing'] }, nested: { n: 1 } }, schema)
  checkBlock('x', { value: 'text' }, schema)
  assert.throws(() => checkBlock('x', { port: 'many' }, schema), {
    message: 'Block of type "x": field "port" must be integer.',
  })
  assert.throws(() => checkBlock('x', { nested: { n: 'many' } }, schema), {
    message: /field "nested.n" must be integer/,
  })
})

test('credentials in free tables and addresses are masked', () => {
  const data = {
    basepath: 's3://b',
    settings: { key: secret, client_kwargs: { aws_session_token: secret, endpoint_url: 'http://h' }, anon: false },
    repository: `https://user:${secret}@host/x.git`,
    ssh: { username: 'u', passphrase: secret, acct: secret, bypass: 'local', pass_through: 'all' },
    http: { headers: { Cookie: secret, 'X-Custom': [secret] }, db_pwd: secret, pass: secret, cookies: { a: secret } },
    smb: { password: 123_456, port: 445 },
    container_url: `https://h/c?sv=2024&sig=${secret}%3D&se=1`,
    text: `DefaultEndpointsProtocol=https;AccountName=n;AccountKey=${secret}==;BlobEndpoint=http://h/n`,
    spaced: `Server=h; Password=my ${secret};Port=1`,
    folder: 's3://tokens/day=1/key=2',
  }
  assert.deepEqual(maskSecrets(data), {
    basepath: 's3://b',
    settings: {
      key: '********',
      client_kwargs: { aws_session_token: '********', endpoint_url: 'http://h' },
      anon: false,
    },
    repository: 'https://********@host/x.git',
    ssh: { username: 'u', passphrase: '********', acct: '********', bypass: 'local', pass_through: 'all' },
    http: {
      headers: { Cookie: '********', 'X-Custom': ['********'] },
      db_pwd: '********',
      pass: '********',
      cookies: { a: '********' },
    },
    smb: { password: '********', port: 445 },
    container_url: 'https://h/c?sv=2024&sig=********&se=1',
    text: 'DefaultEndpointsProtocol=https;AccountName=n;AccountKey=********;BlobEndpoint=http://h/n',
    spaced: 'Server=h; Password=********;Port=1',
    folder: 's3://tokens/day=1/key=2',
  })
})
