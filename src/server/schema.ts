// The database's tables, and how each column's text or number is read back.
//
// `user_version` counts the steps of MIGRATIONS that a file has seen; a step is never changed, only added.

const RUN_COLUMNS = `
  state_id TEXT, state_type TEXT, state_name TEXT, state_timestamp TEXT,
  run_count INTEGER NOT NULL DEFAULT 0, expected_start_time TEXT, next_scheduled_start_time TEXT,
  start_time TEXT, end_time TEXT, total_run_time REAL NOT NULL DEFAULT 0,
  empirical_policy TEXT NOT NULL, tags TEXT NOT NULL DEFAULT '[]'`

const HEAD = 'id TEXT PRIMARY KEY, created TEXT NOT NULL, updated TEXT NOT NULL'

const STATE_COLUMNS = `
  id TEXT PRIMARY KEY, type TEXT NOT NULL, name TEXT NOT NULL, timestamp TEXT NOT NULL,
  message TEXT, data TEXT, state_details TEXT NOT NULL`

export const MIGRATIONS: readonly string[] = [
  `
CREATE TABLE flow (${HEAD}, name TEXT NOT NULL UNIQUE, tags TEXT NOT NULL DEFAULT '[]') STRICT;

CREATE TABLE work_pool (${HEAD}, name TEXT NOT NULL UNIQUE, description TEXT, type TEXT NOT NULL,
  base_job_template TEXT NOT NULL DEFAULT '{}', is_paused INTEGER NOT NULL DEFAULT 0, concurrency_limit INTEGER,
  status TEXT, default_queue_id TEXT) STRICT;

CREATE TABLE work_queue (${HEAD}, name TEXT NOT NULL, description TEXT NOT NULL DEFAULT '',
  is_paused INTEGER NOT NULL DEFAULT 0, concurrency_limit INTEGER, priority INTEGER NOT NULL, filter TEXT,
  work_pool_id TEXT NOT NULL REFERENCES work_pool(id) ON DELETE CASCADE, last_polled TEXT, status TEXT NOT NULL,
  UNIQUE (work_pool_id, name)) STRICT;
CREATE INDEX work_queue_name ON work_queue(name);

CREATE TABLE block_type (${HEAD}, name TEXT NOT NULL, slug TEXT NOT NULL UNIQUE, logo_url TEXT,
  documentation_url TEXT, description TEXT, code_example TEXT, is_protected INTEGER NOT NULL DEFAULT 0) STRICT;

CREATE TABLE block_schema (${HEAD}, checksum TEXT NOT NULL, fields TEXT NOT NULL,
  block_type_id TEXT NOT NULL REFERENCES block_type(id) ON DELETE CASCADE, capabilities TEXT NOT NULL DEFAULT '[]',
  version TEXT NOT NULL, UNIQUE (checksum, version)) STRICT;

CREATE TABLE block_document (${HEAD}, name TEXT, data TEXT NOT NULL, is_anonymous INTEGER NOT NULL DEFAULT 0,
  block_type_id TEXT NOT NULL REFERENCES block_type(id) ON DELETE CASCADE,
  block_schema_id TEXT NOT NULL REFERENCES block_schema(id) ON DELETE CASCADE,
  UNIQUE (block_type_id, name)) STRICT;

CREATE TABLE deployment (${HEAD}, name TEXT NOT NULL, version TEXT, description TEXT,
  flow_id TEXT NOT NULL REFERENCES flow(id) ON DELETE CASCADE, paused INTEGER NOT NULL DEFAULT 0,
  infra_overrides TEXT NOT NULL DEFAULT '{}', parameters TEXT NOT NULL DEFAULT '{}', tags TEXT NOT NULL DEFAULT '[]',
  work_queue_name TEXT, work_queue_id TEXT REFERENCES work_queue(id) ON DELETE SET NULL, last_polled TEXT,
  parameter_openapi_schema TEXT, path TEXT, pull_steps TEXT, entrypoint TEXT, manifest_path TEXT,
  storage_document_id TEXT REFERENCES block_document(id) ON DELETE SET NULL,
  infrastructure_document_id TEXT REFERENCES block_document(id) ON DELETE SET NULL,
  status TEXT NOT NULL DEFAULT 'NOT_READY', enforce_parameter_schema INTEGER NOT NULL DEFAULT 0,
  UNIQUE (flow_id, name)) STRICT;
CREATE INDEX deployment_work_queue ON deployment(work_queue_id);

CREATE TABLE deployment_schedule (${HEAD}, deployment_id TEXT NOT NULL REFERENCES deployment(id) ON DELETE CASCADE,
  schedule TEXT NOT NULL, active INTEGER NOT NULL DEFAULT 1, max_active_runs INTEGER, max_scheduled_runs INTEGER,
  catchup INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX deployment_schedule_deployment ON deployment_schedule(deployment_id);

CREATE TABLE flow_run (${HEAD}, name TEXT NOT NULL, flow_id TEXT NOT NULL REFERENCES flow(id) ON DELETE CASCADE,
  deployment_id TEXT, deployment_version TEXT, work_queue_id TEXT REFERENCES work_queue(id) ON DELETE SET NULL,
  work_queue_name TEXT, flow_version TEXT, parameters TEXT NOT NULL DEFAULT '{}', idempotency_key TEXT,
  context TEXT NOT NULL DEFAULT '{}', parent_task_run_id TEXT, auto_scheduled INTEGER NOT NULL DEFAULT 0,
  infrastructure_document_id TEXT, infrastructure_pid TEXT, job_variables TEXT DEFAULT '{}', ${RUN_COLUMNS},
  UNIQUE (flow_id, idempotency_key)) STRICT;
CREATE INDEX flow_run_due ON flow_run(work_queue_name, state_type, next_scheduled_start_time);
CREATE INDEX flow_run_queue ON flow_run(work_queue_id, state_type, next_scheduled_start_time);
CREATE INDEX flow_run_state_type ON flow_run(state_type, next_scheduled_start_time);
CREATE INDEX flow_run_deployment ON flow_run(deployment_id, state_type);
CREATE INDEX flow_run_parent ON flow_run(parent_task_run_id) WHERE parent_task_run_id IS NOT NULL;
CREATE INDEX flow_run_expected ON flow_run(expected_start_time);

CREATE TABLE flow_run_state (${STATE_COLUMNS}, flow_run_id TEXT NOT NULL REFERENCES flow_run(id) ON DELETE CASCADE) STRICT;
CREATE INDEX flow_run_state_run ON flow_run_state(flow_run_id, timestamp);

CREATE TABLE flow_run_input (${HEAD}, flow_run_id TEXT NOT NULL REFERENCES flow_run(id) ON DELETE CASCADE,
  key TEXT NOT NULL, value TEXT NOT NULL, sender TEXT, UNIQUE (flow_run_id, key)) STRICT;

CREATE TABLE task_run (${HEAD}, name TEXT NOT NULL, flow_run_id TEXT REFERENCES flow_run(id) ON DELETE CASCADE,
  task_key TEXT NOT NULL, dynamic_key TEXT NOT NULL, cache_key TEXT, cache_expiration TEXT, task_version TEXT,
  task_inputs TEXT NOT NULL DEFAULT '{}', flow_run_run_count INTEGER NOT NULL DEFAULT 0, ${RUN_COLUMNS},
  UNIQUE (flow_run_id, task_key, dynamic_key)) STRICT;
CREATE INDEX task_run_state_type ON task_run(flow_run_id, state_type);

CREATE TABLE task_run_state (${STATE_COLUMNS}, task_run_id TEXT NOT NULL REFERENCES task_run(id) ON DELETE CASCADE) STRICT;
CREATE INDEX task_run_state_run ON task_run_state(task_run_id, timestamp);

CREATE TABLE task_run_state_cache (id TEXT PRIMARY KEY, created TEXT NOT NULL, cache_key TEXT NOT NULL,
  cache_expiration TEXT, task_run_state_id TEXT NOT NULL) STRICT;
CREATE INDEX task_run_state_cache_key ON task_run_state_cache(cache_key, created);

CREATE TABLE log (${HEAD}, name TEXT NOT NULL, level INTEGER NOT NULL, message TEXT NOT NULL, timestamp TEXT NOT NULL,
  flow_run_id TEXT, task_run_id TEXT) STRICT;
CREATE INDEX log_flow_run ON log(flow_run_id, timestamp);
CREATE INDEX log_task_run ON log(task_run_id, timestamp) WHERE task_run_id IS NOT NULL;

CREATE TABLE variable (${HEAD}, name TEXT NOT NULL UNIQUE, value TEXT NOT NULL, tags TEXT NOT NULL DEFAULT '[]') STRICT;
`,
]

/** Columns that hold JSON, in whatever table they stand. */
export const JSON_COLUMNS: ReadonlySet<string> = new Set([
  'tags',
  'base_job_template',
  'filter',
  'fields',
  'capabilities',
  'data',
  'infra_overrides',
  'parameters',
  'parameter_openapi_schema',
  'pull_steps',
  'schedule',
  'context',
  'job_variables',
  'empirical_policy',
  'state_details',
  'task_inputs',
])

/** Columns that hold 0 or 1. */
export const BOOLEAN_COLUMNS: ReadonlySet<string> = new Set([
  'is_paused',
  'is_protected',
  'is_anonymous',
  'paused',
  'enforce_parameter_schema',
  'active',
  'catchup',
  'auto_scheduled',
])
