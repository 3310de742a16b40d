// The one table of settings: key, environment names, flag, kind of value, and what it means. Defaults: config/defaults.toml.
//
// A key `agent.lingerSeconds` is `linger_seconds` below `[agent]` in a file, `config.agent.lingerSeconds` in the program and,
// when nothing else is said, RIGEL_AGENT_LINGER_SECONDS in the environment and `--agent-linger-seconds` on the command line.

import * as kind from './kinds.ts'

export interface Setting<T> {
  readonly kind: kind.Kind<T>
  /** Environment names, the strongest first; Prefect's own where it has one. Empty: named after the key. */
  readonly env?: readonly string[]
  readonly flag?: string
  /** One letter for the flag, where Prefect has one. */
  readonly short?: string
  /** One sentence for docs/configuration.md, with the unit. */
  readonly doc: string
}

/** Keeps the type of the value while the table is checked. */
function setting<T>(row: Setting<T>): Setting<T> {
  return row
}

// Paths may name settings above them as ${NAME}, so the order of the rows matters: home, then what lies in it.
export const settings = {
  prefect: {
    home: setting({
      kind: kind.path,
      env: ['PREFECT_HOME'],
      doc: "Prefect's home directory; profiles and, by default, our state lie in it.",
    }),
    profilesPath: setting({
      kind: kind.path,
      env: ['PREFECT_PROFILES_PATH'],
      doc: 'The file of profiles.',
    }),
    profile: setting({
      kind: kind.optional(kind.text),
      env: ['PREFECT_PROFILE'],
      flag: '--profile',
      doc: 'The profile to use; when not set, the one that the profiles file calls active.',
    }),
  },
  api: {
    url: setting({
      kind: kind.optional(kind.url),
      env: ['PREFECT_API_URL'],
      flag: '--api',
      doc: 'Base URL of the Prefect API, with its `/api`.',
    }),
    key: setting({
      kind: kind.secret(kind.text),
      env: ['PREFECT_API_KEY'],
      doc: 'API key of Prefect Cloud, sent as a bearer token.',
    }),
    authString: setting({
      kind: kind.secret(kind.text),
      env: ['PREFECT_API_AUTH_STRING'],
      doc: '`user:password` of a self-hosted server with basic authentication; used instead of the key.',
    }),
    customHeaders: setting({
      kind: kind.secret(kind.headers),
      env: ['PREFECT_CLIENT_CUSTOM_HEADERS'],
      doc: 'Further headers of each request, a JSON object (in a file also a table).',
    }),
    tlsInsecureSkipVerify: setting({
      kind: kind.truth,
      env: ['PREFECT_API_TLS_INSECURE_SKIP_VERIFY'],
      doc: "Do not check the server's certificate.",
    }),
    sslCertFile: setting({
      kind: kind.optional(kind.path),
      env: ['PREFECT_API_SSL_CERT_FILE', 'SSL_CERT_FILE'],
      doc: 'File of certificates (PEM) to trust instead of the public ones.',
    }),
    requestTimeoutSeconds: setting({
      kind: kind.interval,
      env: ['PREFECT_API_REQUEST_TIMEOUT'],
      doc: 'Seconds that a request may take to connect, and to be answered.',
    }),
    maxRetries: setting({
      kind: kind.integer(0),
      env: ['PREFECT_CLIENT_MAX_RETRIES'],
      doc: 'How often a failed request is sent again.',
    }),
    retryJitterFactor: setting({
      kind: kind.decimal(0),
      env: ['PREFECT_CLIENT_RETRY_JITTER_FACTOR'],
      doc: 'How much the pause before a retry is spread, as a share of it; 0 spreads nothing.',
    }),
    retryExtraCodes: setting({
      kind: kind.statusCodes,
      env: ['PREFECT_CLIENT_RETRY_EXTRA_CODES'],
      doc: 'HTTP status codes to retry beside 408, 429, 502 and 503.',
    }),
    csrfSupport: setting({
      kind: kind.truth,
      env: ['PREFECT_CLIENT_CSRF_SUPPORT_ENABLED'],
      doc: 'Fetch and send a CSRF token, for self-hosted servers that ask for one.',
    }),
    cloudApiUrl: setting({
      kind: kind.url,
      env: ['PREFECT_CLOUD_API_URL'],
      doc: 'An API URL that starts with this is Prefect Cloud.',
    }),
  },
  proxy: {
    http: setting({
      kind: kind.secret(kind.text),
      env: ['HTTP_PROXY'],
      doc: 'Proxy for http:// addresses (secret, for it may hold a password).',
    }),
    https: setting({
      kind: kind.secret(kind.text),
      env: ['HTTPS_PROXY'],
      doc: 'Proxy for https:// addresses (secret, for it may hold a password).',
    }),
    all: setting({
      kind: kind.secret(kind.text),
      env: ['ALL_PROXY'],
      doc: 'Proxy for addresses that the two above do not cover.',
    }),
    noProxy: setting({
      kind: kind.optional(kind.text),
      env: ['NO_PROXY'],
      doc: 'Hosts that are reached without a proxy, with commas between; `*` is all.',
    }),
  },
  paths: {
    stateDir: setting({
      kind: kind.path,
      env: ['RIGEL_STATE_DIR'],
      flag: '--state-dir',
      doc: 'Directory of the journal and the identity; one agent each, on a real disk.',
    }),
    cacheDir: setting({
      kind: kind.path,
      env: ['RIGEL_CACHE_DIR'],
      flag: '--cache-dir',
      doc: 'Directory of fetched flow code, shared by all agents of this user on the machine.',
    }),
  },
  agent: {
    name: setting({
      kind: kind.optional(kind.text),
      flag: '--name',
      doc: 'Identity of the agent, which no other may share; by default made once and kept in the state directory.',
    }),
    queryIntervalSeconds: setting({
      kind: kind.interval,
      env: ['PREFECT_AGENT_QUERY_INTERVAL'],
      doc: 'Seconds between two polls.',
    }),
    prefetchSeconds: setting({
      kind: kind.seconds,
      env: ['PREFECT_AGENT_PREFETCH_SECONDS'],
      flag: '--prefetch-seconds',
      doc: 'Seconds before its scheduled time at which a run is fetched.',
    }),
    limit: setting({
      kind: kind.optional(kind.integer(1)),
      flag: '--limit',
      short: '-l',
      doc: 'Runs that the agent holds at once; when not set, 4 for each processor core.',
    }),
    cancelGraceSeconds: setting({
      kind: kind.seconds,
      doc: 'Seconds between asking a cancelled run to end and forcing it.',
    }),
    lingerSeconds: setting({
      kind: kind.seconds,
      doc: 'Seconds that infrastructure may live on after its run is over on the server.',
    }),
    drainSeconds: setting({
      kind: kind.seconds,
      doc: 'Seconds that the agent waits for its runs after the first SIGTERM or SIGINT.',
    }),
    onStop: setting({
      kind: kind.choice(['auto', 'detach', 'kill']),
      doc: 'What happens to runs after the drain: `detach` leaves them running for the next agent, `kill` ends them, `auto` is kill at a terminal and detach as a service.',
    }),
    enhancedCancellation: setting({
      kind: kind.truth,
      env: ['PREFECT_EXPERIMENTAL_ENABLE_ENHANCED_CANCELLATION'],
      doc: "Start flows in containers so that they run their own cancellation hooks, as Prefect 2's agent does by default.",
    }),
    stoppedRuns: setting({
      kind: kind.choice(['crashed', 'scheduled']),
      doc: 'The state of runs that the stopping agent has ended.',
    }),
  },
  process: {
    python: setting({
      kind: kind.optional(kind.text),
      env: ['RIGEL_PYTHON'],
      flag: '--python',
      doc: 'Python that runs flows; when not set, that of VIRTUAL_ENV, else `python3`.',
    }),
    outputCapBytes: setting({
      kind: kind.integer(0),
      doc: "Bytes of a run's output that are kept on disk until they are shipped.",
    }),
    inheritEnv: setting({
      kind: kind.allOrNames,
      doc: "What runs get of the agent's environment: `all`, or the names of variables.",
    }),
    streamOutput: setting({
      kind: kind.truth,
      doc: "Show the output of runs in the agent's own, where the infrastructure block asks for that (`stream_output`).",
    }),
  },
  status: {
    host: setting({
      kind: kind.text,
      doc: 'Address on which /live, /ready, /status and /metrics are served.',
    }),
    port: setting({
      kind: kind.optional(kind.port),
      doc: 'Port of these; when not set, nothing is served, and 0 takes a free one.',
    }),
  },
  logging: {
    level: setting({
      kind: kind.logLevel,
      env: ['PREFECT_LOGGING_LEVEL'],
      doc: 'The least level that is logged.',
    }),
    debug: setting({
      kind: kind.truth,
      env: ['PREFECT_DEBUG_MODE'],
      flag: '--debug',
      doc: 'Log from DEBUG on, and show the stack of errors.',
    }),
    format: setting({
      kind: kind.choice(['auto', 'json', 'pretty']),
      doc: 'Form of log lines; `auto` is pretty at a terminal, else JSON.',
    }),
    toApiEnabled: setting({
      kind: kind.truth,
      env: ['PREFECT_LOGGING_TO_API_ENABLED'],
      doc: 'Send the output of plain commands to the Prefect API as logs.',
    }),
  },
  storage: {
    fetch: setting({
      kind: kind.choice(['agent', 'infrastructure']),
      doc: "Who fetches flow code: the agent, as far as it can, or Prefect's engine where the flow runs.",
    }),
    fetchImage: setting({
      kind: kind.optional(kind.text),
      doc: 'Image of Rigel that fetches code in a pod where it is too large to be sent; by default rigel-agent of its own version.',
    }),
    maxBytes: setting({
      kind: kind.integer(1),
      doc: 'Bytes that the code of one run may have.',
    }),
    maxFiles: setting({
      kind: kind.integer(1),
      doc: 'Files that the code of one run may have.',
    }),
    timeoutSeconds: setting({
      kind: kind.interval,
      doc: 'Seconds that fetching the code of one run may take.',
    }),
    cacheMaxBytes: setting({
      kind: kind.integer(0),
      doc: 'Bytes that the cache of fetched code may keep; beyond them, what was used least recently goes.',
    }),
    cacheMaxAgeDays: setting({
      kind: kind.decimal(0),
      doc: 'Days after its last use at which fetched code leaves the cache.',
    }),
  },
  cleanup: {
    keepFinished: setting({
      kind: kind.integer(0),
      doc: 'Finished containers of this agent that are kept, the newest.',
    }),
    keepFinishedDays: setting({
      kind: kind.decimal(0),
      doc: 'Days after its end at which a finished container is not kept any more.',
    }),
    removeImages: setting({
      kind: kind.truth,
      doc: 'Also remove images that were pulled for runs, beyond the number and the age below; `rigel gc --images` does so once.',
    }),
    keepImages: setting({
      kind: kind.integer(0),
      doc: 'Images pulled for runs that are kept then, those used last.',
    }),
    keepImagesDays: setting({
      kind: kind.decimal(0),
      doc: 'Days after its last use at which such an image is not kept any more.',
    }),
  },
  server: {
    host: setting({
      kind: kind.text,
      env: ['PREFECT_SERVER_API_HOST'],
      flag: '--host',
      doc: 'Address on which the embedded server listens.',
    }),
    port: setting({
      kind: kind.port,
      env: ['PREFECT_SERVER_API_PORT'],
      flag: '--port',
      doc: 'Port of the embedded server; 0 takes a free one.',
    }),
    databasePath: setting({
      kind: kind.path,
      flag: '--database-path',
      doc: 'SQLite file of the embedded server.',
    }),
  },
} as const

export type Section = keyof typeof settings

/** One row of the table with its names worked out. */
export interface NamedSetting extends Required<Omit<Setting<unknown>, 'short'>> {
  readonly short: string | undefined
  readonly section: string
  readonly name: string
  /** `agent.linger_seconds`, as in a file. */
  readonly key: string
}

/** Every setting, in the order of the table. */
export const allSettings: readonly NamedSetting[] = Object.entries(settings).flatMap(([section, rows]) =>
  Object.entries<Setting<unknown>>(rows).map(([name, row]) => {
    const key = `${section}.${snakeCase(name)}`
    const dashed = key.replace(/[._]/g, '-')
    return {
      ...row,
      section,
      name,
      key,
      short: row.short,
      env: row.env ?? [`RIGEL_${dashed.replaceAll('-', '_').toUpperCase()}`],
      // A secret in argv is seen by every user of the machine, so its flag takes a file that holds it.
      flag: row.flag ?? (row.kind.isSecret ? `--${dashed}-file` : `--${dashed}`),
    }
  }),
)

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, letter => `_${letter.toLowerCase()}`)
}
