import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { type ConfigInput, readConfig } from '../../src/config/config.ts'
import { UserError } from '../../src/errors.ts'
import { makeDirectory } from '../support/directory.ts'

/** A home directory with the given files, and a reader that sees nothing else of this machine. */
async function makeHome(files: Readonly<Record<string, string>> = {}) {
  const directory = await makeDirectory()
  await mkdir(join(directory.path, '.prefect'))
  for (const [name, content] of Object.entries(files)) await writeFile(join(directory.path, name), content)
  const read = (input: ConfigInput = {}) =>
    readConfig({ cwd: directory.path, ...input, env: { HOME: directory.path, ...input.env } })
  return { path: directory.path, read, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() }
}

function refusal(act: () => unknown): UserError {
  let thrown: unknown
  try {
    act()
  } catch (error) {
    thrown = error
  }
  assert.ok(thrown instanceof UserError, `refused with: ${String(thrown)}`)
  assert.equal(thrown.exitCode, 2)
  return thrown
}

test('without anything else the defaults count, below the home directory', async () => {
  await using home = await makeHome()
  const config = home.read()
  assert.equal(config.agent.queryIntervalSeconds, 15)
  assert.equal(config.agent.limit, undefined)
  assert.equal(config.api.url, undefined)
  assert.equal(config.paths.stateDir, join(home.path, '.prefect/rigel'))
  assert.equal(config.paths.cacheDir, join(home.path, '.prefect/rigel/cache'))
  assert.equal(config.sources['api.url'], 'default')
  assert.deepEqual(config.warnings, [])
})

test('flags hide the environment, which hides the profile, which hides the file, which hides the defaults', async () => {
  await using home = await makeHome({
    'rigel.toml':
      '[agent]\nquery_interval_seconds = 1\n[api]\nmax_retries = 1\nretry_jitter_factor = 1\nurl = "http://file/api"',
    '.prefect/profiles.toml':
      'active = "mine"\n[profiles.mine]\nPREFECT_CLIENT_MAX_RETRIES = 2\nPREFECT_CLIENT_RETRY_JITTER_FACTOR = "2"\nPREFECT_API_URL = "http://profile/api"',
  })
  const config = home.read({
    configFile: 'rigel.toml',
    env: { PREFECT_CLIENT_RETRY_JITTER_FACTOR: '3', PREFECT_API_URL: 'http://environment/api' },
    flags: { 'api.url': 'http://flag/api' },
  })
  assert.equal(config.agent.queryIntervalSeconds, 1)
  assert.equal(config.api.maxRetries, 2)
  assert.equal(config.api.retryJitterFactor, 3)
  assert.equal(config.api.url, 'http://flag/api')
  assert.equal(config.sources['agent.query_interval_seconds'], `file ${join(home.path, 'rigel.toml')}`)
  assert.equal(config.sources['api.max_retries'], `profile mine in ${join(home.path, '.prefect/profiles.toml')}`)
  assert.equal(config.sources['api.retry_jitter_factor'], 'environment PREFECT_CLIENT_RETRY_JITTER_FACTOR')
  assert.equal(config.sources['api.url'], 'flag --api')
})

test('a profile named by a flag is stronger than the environment', async () => {
  await using home = await makeHome({
    '.prefect/profiles.toml': '[profiles.prod]\nPREFECT_API_URL = "http://prod/api"',
  })
  const env = { PREFECT_API_URL: 'http://environment/api' }
  const byFlag = home.read({ env, flags: { 'prefect.profile': 'prod' } })
  assert.equal(byFlag.api.url, 'http://prod/api')
  assert.equal(byFlag.prefectEnvironment.PREFECT_API_URL, 'http://prod/api')
  const byName = home.read({ env: { ...env, PREFECT_PROFILE: 'prod' } })
  assert.equal(byName.api.url, 'http://environment/api')
  assert.equal(byName.prefectEnvironment.PREFECT_API_URL, 'http://environment/api')
})

test('the profile is the named one, else the active one, and an unknown one is the default with a warning', async () => {
  await using home = await makeHome({
    'elsewhere.toml':
      'active = "b"\n[profiles.default]\nPREFECT_API_URL = "http://default/api"\n[profiles.b]\nprefect_api_url = "http://b/api"\n[profiles.c]\nPREFECT_API_URL = "http://c/api"',
  })
  const at = { PREFECT_PROFILES_PATH: join(home.path, 'elsewhere.toml') }
  assert.equal(home.read({ env: at }).api.url, 'http://b/api')
  assert.equal(home.read({ env: { ...at, PREFECT_PROFILE: 'c' } }).api.url, 'http://c/api')
  assert.equal(home.read({ env: { ...at, PREFECT_PROFILE: 'local' } }).api.url, 'http://127.0.0.1:4200/api')
  const unknown = home.read({ env: { ...at, PREFECT_PROFILE: 'd' } })
  assert.equal(unknown.api.url, 'http://default/api')
  assert.match(unknown.warnings.join(), /no profile "d"/)
  const refused = refusal(() => home.read({ env: at, flags: { 'prefect.profile': 'defualt' } }))
  assert.match(refused.message, /no profile "defualt"/)
  assert.match(refused.hint ?? '', /"default"/)
})

test('an unknown key of the file is refused with file, key and the nearest name', async () => {
  await using home = await makeHome({
    'rigel.toml': '[agent]\nquery_interval = 1',
    'table.toml': '[agnet]\nlimit = 1',
    'flat.toml': 'agent = 1',
  })
  const key = refusal(() => home.read({ configFile: 'rigel.toml' }))
  assert.match(key.message, /rigel\.toml.*"agent\.query_interval"/)
  const table = refusal(() => home.read({ configFile: 'table.toml' }))
  assert.match(table.message, /table\.toml.*\[agnet\]/)
  assert.match(table.hint ?? '', /"agent"/)
  assert.match(refusal(() => home.read({ configFile: 'flat.toml' })).message, /flat\.toml.*table \[agent\]/)
})

test('an unknown RIGEL_ variable is refused with the nearest name, and those of runs and tests are not', async () => {
  await using home = await makeHome()
  const refused = refusal(() => home.read({ env: { RIGEL_AGENT_LINGER_SECOND: '1' } }))
  assert.match(refused.message, /RIGEL_AGENT_LINGER_SECOND\b/)
  assert.match(refused.hint ?? '', /RIGEL_AGENT_LINGER_SECONDS/)
  home.read({ env: { RIGEL_PARAMETERS_FILE: '/x', RIGEL_TEST_REQUIRE: 'root' } })
})

test('unknown Prefect names are left alone, with a warning when one letter is wrong', async () => {
  await using home = await makeHome({
    '.prefect/profiles.toml': '[profiles.default]\nPREFECT_UI_ENABLED = false\nPREFECT_API_UR = "http://x/api"',
  })
  const config = home.read({ env: { PREFECT_SERVER_ANALYTICS_ENABLED: 'false', PREFECT_APi_KEI: 'x' } })
  assert.equal(config.api.url, undefined)
  assert.equal(config.warnings.length, 2)
  assert.match(config.warnings.join('\n'), /PREFECT_API_UR .*did you mean PREFECT_API_URL/)
  assert.match(config.warnings.join('\n'), /PREFECT_API_KEI .*did you mean PREFECT_API_KEY/)
})

test('a value that does not fit is refused with its source, its name and what was expected', async () => {
  await using home = await makeHome({
    'rigel.toml': '[agent]\nlimit = "many"',
    'broken.toml': '[api]\nkey = "s3cret',
  })
  const inFile = refusal(() => home.read({ configFile: 'rigel.toml' }))
  assert.match(inFile.message, /agent\.limit \(file .*rigel\.toml\) is "many", but a whole number of at least 1/)
  const inEnvironment = refusal(() => home.read({ env: { PREFECT_AGENT_QUERY_INTERVAL: '0' } }))
  assert.match(inEnvironment.message, /PREFECT_AGENT_QUERY_INTERVAL.*is "0", but a number of seconds above zero/)
  assert.match(refusal(() => home.read({ flags: { 'api.url': 'prefect:4200' } })).message, /--api .*is "prefect:4200"/)
  const headers = refusal(() => home.read({ env: { PREFECT_CLIENT_CUSTOM_HEADERS: 'x-token: s3cret' } }))
  assert.match(headers.message, /PREFECT_CLIENT_CUSTOM_HEADERS.*JSON object/)
  const broken = refusal(() => home.read({ configFile: 'broken.toml' }))
  assert.match(broken.message, /broken\.toml in line 2/)
  for (const error of [headers, broken]) assert.doesNotMatch(inspect(error), /s3cret/)
  assert.match(refusal(() => home.read({ configFile: 'none.toml' })).message, /none\.toml: there is no such file/)
})

test('an empty variable unsets what can be unset and is ignored where a value is needed', async () => {
  await using home = await makeHome({ 'rigel.toml': '[api]\nurl = "http://file/api"\nmax_retries = 1' })
  const config = home.read({ configFile: 'rigel.toml', env: { PREFECT_API_URL: '', PREFECT_CLIENT_MAX_RETRIES: '' } })
  assert.equal(config.api.url, undefined)
  assert.equal(config.api.maxRetries, 1)
})

test('names count in any case, and of two spellings the capital one, for proxies the small one', async () => {
  await using home = await makeHome()
  const config = home.read({
    env: {
      prefect_api_url: 'http://small/api',
      PREFECT_API_URL: 'http://capital/api',
      http_proxy: 'http://small:1',
      HTTP_PROXY: 'http://capital:1',
    },
  })
  assert.equal(config.api.url, 'http://capital/api')
  assert.equal(config.proxy.http?.reveal(), 'http://small:1')
})

test("Prefect's ways to write truth, codes, headers and levels are understood", async () => {
  await using home = await makeHome()
  const config = home.read({
    env: {
      PREFECT_API_TLS_INSECURE_SKIP_VERIFY: 'Yes',
      PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: 'off',
      PREFECT_CLIENT_RETRY_EXTRA_CODES: '500, 504',
      PREFECT_CLIENT_CUSTOM_HEADERS: '{"X-Team": "a"}',
      PREFECT_LOGGING_LEVEL: 'warning',
    },
  })
  assert.equal(config.api.tlsInsecureSkipVerify, true)
  assert.equal(config.api.csrfSupport, false)
  assert.deepEqual(config.api.retryExtraCodes, [500, 504])
  assert.deepEqual(config.api.customHeaders?.reveal(), { 'X-Team': 'a' })
  assert.equal(config.logging.level, 'WARNING')
  assert.equal(home.read({ env: { PREFECT_DEBUG_MODE: '1', PREFECT_LOGGING_LEVEL: 'ERROR' } }).logging.level, 'DEBUG')
})

test('paths know the home directory, other settings and the file that they stand in', async () => {
  await using home = await makeHome({
    '.prefect/rigel.toml': '[paths]\nstate_dir = "state"\n[server]\ndatabase_path = "~/my.db"',
  })
  // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the text that a person would write
  const config = home.read({ configFile: '.prefect/rigel.toml', env: { RIGEL_CACHE_DIR: '${PREFECT_HOME}/c' } })
  assert.equal(config.paths.stateDir, join(home.path, '.prefect/state'))
  assert.equal(config.paths.cacheDir, join(home.path, '.prefect/c'))
  assert.equal(config.server.databasePath, join(home.path, 'my.db'))
  assert.equal(home.read({ env: { PREFECT_HOME: '/p' } }).paths.stateDir, '/p/rigel')
})

test('agents with state folders of their own share one cache', async () => {
  await using home = await makeHome({})
  const [first, second] = ['/one', '/two'].map(folder => home.read({ env: { RIGEL_STATE_DIR: folder } }))
  assert.equal(first?.paths.cacheDir, join(home.path, '.prefect/rigel/cache'))
  assert.equal(second?.paths.cacheDir, first?.paths.cacheDir)
})

test('secrets do not show when the configuration is printed', async () => {
  await using home = await makeHome({ 'key.txt': 's3cret-flag\n' })
  const config = home.read({
    env: {
      PREFECT_API_KEY: 's3cret',
      PREFECT_API_AUTH_STRING: 'me:s3cret',
      PREFECT_CLIENT_CUSTOM_HEADERS: '{"a":"s3cret"}',
      HTTPS_PROXY: 'http://me:s3cret@proxy',
      PREFECT_API_DATABASE_CONNECTION_URL: 'postgresql://me:s3cret@db/x',
    },
  })
  assert.equal(config.api.key?.reveal(), 's3cret')
  assert.equal(config.prefectEnvironment.PREFECT_API_KEY, 's3cret')
  assert.doesNotMatch(JSON.stringify(config), /s3cret/)
  assert.doesNotMatch(inspect(config, { depth: 9 }), /s3cret/)
  const byFlag = home.read({ flags: { 'api.key': join(home.path, 'key.txt') } })
  assert.equal(byFlag.api.key?.reveal(), 's3cret-flag')
})

test('runs get every Prefect setting that somebody set, as Python prints it, and no other', async () => {
  await using home = await makeHome({
    'rigel.toml': '[api]\nurl = "http://file/api"\nrequest_timeout_seconds = 9\n[logging]\nlevel = "ERROR"',
    '.prefect/profiles.toml':
      '[profiles.default]\nPREFECT_UI_ENABLED = false\nPREFECT_API_REQUEST_TIMEOUT = 5\nPREFECT_LOGGING_LEVEL = "DEBUG"',
  })
  const config = home.read({
    configFile: 'rigel.toml',
    env: {
      PREFECT_PROFILE: 'default',
      PREFECT__FLOW_RUN_ID: 'private',
      PREFECT_LOGGING_LEVEL: 'INFO',
      prefect_results_default_serializer: 'json',
      OTHER: '1',
    },
  })
  assert.deepEqual(
    { ...config.prefectEnvironment },
    {
      PREFECT_UI_ENABLED: 'False',
      PREFECT_API_REQUEST_TIMEOUT: '5',
      PREFECT_LOGGING_LEVEL: 'INFO',
      PREFECT_RESULTS_DEFAULT_SERIALIZER: 'json',
      PREFECT_API_URL: 'http://file/api',
    },
  )
})

test("runs inherit the agent's environment, or the part that is named, but not its talk with the service manager", async () => {
  await using home = await makeHome()
  const env = { A: '1', B: '2', NOTIFY_SOCKET: '/run/x' }
  assert.deepEqual({ ...home.read({ env }).inheritedEnvironment }, { HOME: home.path, A: '1', B: '2' })
  const limited = home.read({ env: { ...env, RIGEL_PROCESS_INHERIT_ENV: 'B, C' } })
  assert.deepEqual({ ...limited.inheritedEnvironment }, { B: '2' })
  assert.equal(limited.environment.NOTIFY_SOCKET, '/run/x')
})

test("with a home of its own nothing of the user's Prefect is seen", async () => {
  await using home = await makeHome({
    '.prefect/profiles.toml': '[profiles.default]\nPREFECT_API_URL = "http://production/api"',
  })
  const config = home.read({
    isolatedHome: 'mine',
    env: { PREFECT_API_KEY: 's3cret', RIGEL_STATE_DIR: '/production', http_proxy: 'http://p', RIGEL_PYTHON: '/py' },
  })
  assert.equal(config.api.url, undefined)
  assert.equal(config.api.key, undefined)
  assert.equal(config.proxy.http, undefined)
  assert.equal(config.process.python, '/py')
  assert.equal(config.paths.stateDir, join(home.path, 'mine/rigel'))
  assert.deepEqual({ ...config.prefectEnvironment }, { PREFECT_HOME: join(home.path, 'mine') })
  assert.equal(config.inheritedEnvironment.PREFECT_API_KEY, undefined)
})

test('the configuration cannot be changed', async () => {
  await using home = await makeHome()
  const config = home.read()
  assert.throws(() => Object.assign(config.agent, { limit: 1 }), TypeError)
  assert.throws(() => Object.assign(config.api.retryExtraCodes, [500]), TypeError)
  assert.throws(() => Object.assign(config.prefectEnvironment, { PREFECT_API_URL: 'x' }), TypeError)
})

test('a RIGEL_ name without its section is answered with the whole one', async () => {
  await using home = await makeHome()
  const error = refusal(() => home.read({ env: { RIGEL_LIMITT: '3' } }))
  assert.equal(error.hint, 'Did you mean RIGEL_AGENT_LIMIT?')
})
