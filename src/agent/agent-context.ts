// What one life of the agent hands to each of its runs: the rooms' doors, and a few facts.

import type { Infrastructure } from '../infrastructure/infrastructure.ts'
import type { Fetcher } from '../launch/fetcher.ts'
import type { Logger } from '../logger.ts'
import type { PrefectClient } from '../prefect/client.ts'
import type { StorageContext } from '../storage/context.ts'
import type { Complaints } from './complaints.ts'
import type { Journal } from './journal.ts'
import type { OutputRelay } from './output.ts'
import type { RunReader } from './reader.ts'
import type { ClaimRefusals, HostTrouble } from './trouble.ts'
import type { Turns } from './turns.ts'

export interface LaunchSettings {
  /** Prefect's settings that every run gets (API URL, key …). Secret. */
  readonly baseEnvironment: Readonly<Record<string, string>>
  readonly python: { readonly setting: string | undefined; readonly virtualEnv: string | undefined }
  readonly enhancedCancellation: boolean
  /** Who fetches code that both could fetch, where neither block nor deployment says. */
  readonly fetch: Fetcher
  /** For labels: the Prefect version that the agent stands in for. */
  readonly prefectVersion: string
}

export interface AgentSettings {
  /** Runs at once, from claim to the end of their infrastructure. */
  readonly limit: number
  readonly queryIntervalSeconds: number
  /** Between asking a cancelled run to end and forcing it. */
  readonly cancelGraceSeconds: number
  /** How long infrastructure may live on after its run is over on the server. */
  readonly lingerSeconds: number
  /** What becomes of runs that end because the agent must stop. */
  readonly stoppedRuns: 'crashed' | 'scheduled'
  readonly launch: LaunchSettings
}

export interface AgentContext {
  readonly client: PrefectClient
  readonly turns: Turns
  readonly reader: RunReader
  readonly journal: Journal
  readonly trouble: HostTrouble
  readonly refusals: ClaimRefusals
  readonly output: OutputRelay
  readonly complaints: Complaints
  readonly storage: StorageContext
  readonly settings: AgentSettings
  /** This boot of the machine. */
  readonly bootId: string
  readonly logger: Logger
  /** The driver for a block type, loaded at first use. Rejects with an InfrastructureError for an unknown type. */
  infrastructure(type: string): Promise<Infrastructure>
  /** Leaves a run that was refused to others for a while. */
  avoid(flowRunId: string): void
  /** A record has moved: slots may have become free. */
  changed(): void
  /** Work that nobody waits for, owned by the agent's scope. It must handle its own errors. */
  background(work: () => Promise<void>): void
  /** Called before and after each step of a run; does nothing but debug logging in ordinary life. */
  checkpoint(point: string, flowRunId: string): void
}
