// Every kind of credentials that S3 can be fetched with, by `rigel fetch` from a real MinIO: temporary keys that its STS has made, in
// a block, in the environment, in a profile of ~/.aws, from a container's role and from an instance's.

import assert from 'node:assert/strict'
import { createHash, createHmac } from 'node:crypto'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import test from 'node:test'
import { runCli } from '../commands/support.ts'
import { makeBucket } from '../storage/s3-server.ts'
import { readTree } from '../storage/support.ts'
import { makeDirectory } from '../support/directory.ts'
import { listen } from '../support/listen.ts'
import { needs } from '../support/requires.ts'

interface Keys {
  readonly id: string
  readonly secret: string
  readonly token: string
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

function sign(key: string | Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest()
}

/** What AssumeRole of MinIO gives; signed by hand, for the project has no client of STS. */
async function assumeRole(endpoint: string, id: string, secret: string): Promise<Keys> {
  const body = 'Action=AssumeRole&DurationSeconds=3600&Version=2011-06-15'
  const time = new Date().toISOString().replace(/[-:]|\.\d+/g, '')
  const scope = `${time.slice(0, 8)}/us-east-1/sts/aws4_request`
  const type = 'application/x-www-form-urlencoded'
  const { host } = new URL(endpoint)
  const names = 'content-type;host;x-amz-date'
  const canonical = `POST\n/\n\ncontent-type:${type}\nhost:${host}\nx-amz-date:${time}\n\n${names}\n${sha256(body)}`
  const key = scope.split('/').reduce<string | Buffer>(sign, `AWS4${secret}`)
  const signature = sign(key, `AWS4-HMAC-SHA256\n${time}\n${scope}\n${sha256(canonical)}`).toString('hex')
  const authorization = `AWS4-HMAC-SHA256 Credential=${id}/${scope}, SignedHeaders=${names}, Signature=${signature}`
  const headers = { 'content-type': type, 'x-amz-date': time, authorization }
  const answer = await fetch(endpoint, { method: 'POST', headers, body })
  const xml = await answer.text()
  const read = (name: string) => new RegExp(`<${name}>([^<]+)<`).exec(xml)?.[1] ?? assert.fail(xml)
  return { id: read('AccessKeyId'), secret: read('SecretAccessKey'), token: read('SessionToken') }
}

/** What Amazon's machines have beside them: it gives keys to whoever asks, as its documentation says. It is a busy one. */
async function startRoleServer({ id, secret, token }: Keys) {
  const Expiration = new Date(Date.now() + 3_600_000).toISOString()
  const role = JSON.stringify({ Code: 'Success', AccessKeyId: id, SecretAccessKey: secret, Token: token, Expiration })
  const server = createServer((request, answer) => {
    const said = request.url?.endsWith('/security-credentials/') ? 'worker' : role
    // After more than the second that Amazon's SDK gives it by itself.
    setTimeout(() => answer.end(request.method === 'PUT' ? 'a token of this instance' : said), 1200)
  })
  const { port } = await listen(server)
  return {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

interface Row {
  readonly name: string
  /** Fields of the block's `credentials`, and the agent's environment. */
  readonly plan: (
    keys: Keys,
    roles: string,
    directory: string,
  ) => Promise<{ readonly credentials?: object; readonly environment?: Readonly<Record<string, string>> }>
}

const rows: readonly Row[] = [
  {
    name: 'keys and session token of the block',
    plan: async ({ id, secret, token }) => ({
      credentials: { aws_access_key_id: id, aws_secret_access_key: secret, aws_session_token: token },
    }),
  },
  {
    name: 'keys and session token of the environment',
    plan: async ({ id, secret, token }) => ({
      environment: { AWS_ACCESS_KEY_ID: id, AWS_SECRET_ACCESS_KEY: secret, AWS_SESSION_TOKEN: token },
    }),
  },
  {
    name: 'a profile',
    async plan({ id, secret, token }, _, directory) {
      const file = join(directory, 'credentials')
      const lines = [`aws_access_key_id=${id}`, `aws_secret_access_key=${secret}`, `aws_session_token=${token}`]
      await writeFile(file, `[default]\naws_access_key_id=x\naws_secret_access_key=x\n[work]\n${lines.join('\n')}\n`)
      return { credentials: { profile_name: 'work' }, environment: { AWS_SHARED_CREDENTIALS_FILE: file } }
    },
  },
  {
    name: 'the role of a container',
    plan: async (_, roles) => ({ environment: { AWS_CONTAINER_CREDENTIALS_FULL_URI: `${roles}/container` } }),
  },
  {
    name: 'the role of an instance',
    plan: async (_, roles) => ({ environment: { AWS_EC2_METADATA_SERVICE_ENDPOINT: roles } }),
  },
]

for (const { name, plan } of rows) {
  test(`S3 by ${name}`, needs('s3'), async () => {
    await using bucket = await makeBucket('s3')
    await bucket.put('flows/flow.py', 'print("hello")\n')
    await using directory = await makeDirectory()
    const keys = await assumeRole(bucket.endpoint, bucket.accessKeyId, bucket.secretAccessKey)
    await using roles = await startRoleServer(keys)
    const { credentials, environment } = await plan(keys, roles.url, directory.path)
    const own = { ...credentials, region_name: 'us-east-1', aws_client_parameters: { endpoint_url: bucket.endpoint } }
    const data = { bucket_name: bucket.bucket, bucket_folder: 'flows', credentials: own }
    await writeFile(join(directory.path, 'block.json'), JSON.stringify({ block_type_slug: 's3-bucket', data }))
    const env = {
      ...environment,
      PREFECT_HOME: join(directory.path, 'prefect'),
      RIGEL_CACHE_DIR: join(directory.path, 'cache'),
    }
    const fetched = await runCli(['fetch', 'to', '--block-file', 'block.json'], { env, cwd: directory.path })
    assert.equal(fetched.code, 0, fetched.stderr)
    assert.deepEqual(await readTree(join(directory.path, 'to')), { 'flow.py': 'print("hello")\n' })
  })
}
