// Sets the stage for tests of the whole agent with containers: blocks, commands that keep the ledger, agents, and an engine
// on which nothing is left.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'
import { readPrefix } from '../../src/agent/identity.ts'
import { parseHost } from '../../src/infrastructure/docker-endpoint.ts'
import { DockerEngine } from '../../src/infrastructure/docker-engine.ts'
import type { Deployment } from '../../src/prefect/types.ts'
import { type AgentPlan, AgentProcess, never, openStage, type Stage } from '../agent/stage.ts'
import { busybox, dockerHost, removeContainers } from './docker-subject.ts'

/** Containers of its agents are gone when it is closed. */
export function openDockerStage(apiUrl: string, host = dockerHost): Promise<Stage> {
  return openStage(apiUrl, async stateDirectory => {
    if (!existsSync(join(stateDirectory, 'identity'))) return
    await using engine = new DockerEngine(parseHost(host, undefined), undefined)
    await removeContainers(engine, [], readPrefix(stateDirectory, undefined))
  })
}

/** `environment` may put a proxy before the test engine, or name another one. */
export function startAgent(
  stage: Stage,
  plan: Partial<AgentPlan> = {},
  environment: Record<string, string> = {},
): AgentProcess {
  const whole = { apiUrl: stage.apiUrl, stateDirectory: stage.stateDirectory, queues: [stage.queue], ...plan }
  return new AgentProcess(whole, {
    PATH: process.env.PATH,
    HOME: stage.directory,
    PREFECT_HOME: join(stage.directory, 'prefect'),
    DOCKER_HOST: dockerHost,
    ...environment,
  })
}

/** A command that notes START and END in the stage's ledger, which the container has as /ledger. */
export async function deployCommand(stage: Stage, script: string, settings: object = {}): Promise<Deployment> {
  const block = await createBlock(stage, {
    image: busybox,
    env: { LEDGER: '/ledger/ledger', RIGEL_FETCH: 'agent' },
    volumes: [`${stage.directory}:/ledger`],
    ...settings,
  })
  return await stage.deployCommand({ script, deployment: { infrastructure_document_id: block } })
}

/** A `docker-container` block with these fields, removed by the agent unless they say otherwise. Gives its id. */
export async function createBlock(stage: Stage, data: object): Promise<string> {
  const type = await stage.client.readBlockTypeBySlug('docker-container', never)
  assert.ok(type, 'the server knows the block type')
  const [schema] = await stage.client.readBlockSchemas(type.id, never)
  assert.ok(schema)
  const { id } = await stage.client.createBlockDocument(
    {
      is_anonymous: true,
      block_type_id: type.id,
      block_schema_id: schema.id,
      data: { type: 'docker-container', auto_remove: true, ...data },
    },
    never,
  )
  return id
}
