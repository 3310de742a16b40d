// What the tests of the Docker driver share: drivers on the test engine with a state of their own, and the engine itself
// as the judge of what was started. Everything made here is gone when its owner's block ends.

import { readdir } from 'node:fs/promises'
import process from 'node:process'
import { createDockerInfrastructure, type DockerInfrastructure } from '../../src/infrastructure/docker.ts'
import { parseHost } from '../../src/infrastructure/docker-endpoint.ts'
import { DockerEngine } from '../../src/infrastructure/docker-engine.ts'
import type { CleanupRules } from '../../src/infrastructure/infrastructure.ts'
import type { Subject } from './contract.ts'
import { makeRunSubject, type RunSubject } from './run-subject.ts'

/** Only to be used where `needs('docker')` lets you. */
export const dockerHost = process.env.RIGEL_TEST_DOCKER_HOST ?? ''
export const busybox = 'rigel.test/busybox:1'
export const unstopped = new AbortController().signal

export interface DockerSubject extends Subject, RunSubject {
  readonly infrastructure: DockerInfrastructure
  startAnew(environment?: Readonly<Record<string, string>>): DockerInfrastructure
  /** The test engine, reached directly. */
  readonly engine: DockerEngine
}

export interface SubjectOptions {
  /** Where the driver finds the engine, by default the test engine itself. */
  readonly environment?: Readonly<Record<string, string>>
  readonly settings?: Readonly<Record<string, unknown>>
  readonly pullStallSeconds?: number
  /** First 8 hex digits of transition ids, by default random. */
  readonly agentPrefix?: string
  readonly cleanup?: CleanupRules
  readonly idleSweepSeconds?: number
  readonly momentMs?: number
  readonly sshCommand?: readonly string[]
  /** The engine itself, by default the test engine. */
  readonly host?: string
}

export async function makeDockerSubject(options: SubjectOptions = {}): Promise<DockerSubject> {
  const base = await makeRunSubject({ image: busybox, ...options.settings }, options.agentPrefix)
  const { runsDirectory, agentPrefix, logger } = base
  const engine = new DockerEngine(parseHost(options.host ?? dockerHost, undefined), undefined)
  const drivers: DockerInfrastructure[] = []
  const make = (environment = options.environment ?? { DOCKER_HOST: dockerHost }) => {
    const stall = options.pullStallSeconds === undefined ? {} : { pullStallSeconds: options.pullStallSeconds }
    // No home: logins and contexts of the person who runs the tests are none of our business.
    const driver = createDockerInfrastructure({
      runsDirectory,
      logger,
      environment: { HOME: runsDirectory, PATH: process.env.PATH, ...environment },
      ...stall,
      cleanup: options.cleanup,
      ...(options.idleSweepSeconds === undefined ? {} : { idleSweepSeconds: options.idleSweepSeconds }),
      ...(options.momentMs === undefined ? {} : { momentMs: options.momentMs }),
      ...(options.sshCommand ? { sshCommand: options.sshCommand } : {}),
    })
    drivers.push(driver)
    return driver
  }
  return {
    ...base,
    shared: { folder: base.sharedFolder, settings: { volumes: [`${base.sharedFolder}:${base.sharedFolder}`] } },
    infrastructure: make(),
    startAnew: make,
    engine,
    [Symbol.asyncDispose]: async () => {
      await removeContainers(engine, await readdir(runsDirectory), agentPrefix)
      for (const driver of drivers) await driver[Symbol.asyncDispose]()
      await engine[Symbol.asyncDispose]()
      await base[Symbol.asyncDispose]()
    },
  }
}

/** Those of an agent, and those of some runs: contract tests make ids of their own. */
export async function removeContainers(
  engine: DockerEngine,
  flowRunIds: readonly string[],
  agentPrefix: string,
): Promise<void> {
  const all = await engine.list(['io.rigel.version'], true, AbortSignal.timeout(20_000))
  const own = all.filter(
    ({ Labels }) =>
      Labels['io.rigel.agent'] === agentPrefix || flowRunIds.includes(Labels['io.rigel.flow-run-id'] ?? ''),
  )
  await Promise.all(
    own.map(async ({ Id, State }) => {
      if (State === 'running' || State === 'paused')
        await engine.kill(Id, AbortSignal.timeout(20_000)).catch(() => false)
      await engine.stop(Id, 0, AbortSignal.timeout(30_000))
      await engine.remove(Id, AbortSignal.timeout(30_000))
    }),
  )
}
