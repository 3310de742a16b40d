// Decides which Python runs the engine.

import type { InfrastructureBlock } from './infrastructure-block.ts'

export interface PythonChoice {
  /** The agent's own setting. */
  readonly setting: string | undefined
  /** `VIRTUAL_ENV` of the agent's environment. */
  readonly virtualEnv: string | undefined
}

/**
 * A program name or path. For processes: `RIGEL_PYTHON` of the block's env, or of the deployment's job variables when no
 * block took them in; the agent's setting; the virtual environment; `python3`. In a container only the first counts, for
 * the agent's paths mean nothing there, else `python`.
 */
export function choosePython(
  block: Pick<InfrastructureBlock, 'type' | 'env'>,
  overrides: Readonly<Record<string, unknown>>,
  choice: PythonChoice,
): string {
  const own = block.env.RIGEL_PYTHON || findOverride(overrides)
  if (own) return own
  if (block.type !== 'process') return 'python'
  if (choice.setting) return choice.setting
  const virtualEnv = block.env.VIRTUAL_ENV || choice.virtualEnv
  return virtualEnv ? `${virtualEnv.replace(/\/+$/, '')}/bin/python` : 'python3'
}

function findOverride(overrides: Readonly<Record<string, unknown>>): string | undefined {
  const { env } = overrides
  const nested = typeof env === 'object' && env !== null ? new Map<string, unknown>(Object.entries(env)) : undefined
  for (const value of [overrides['env.RIGEL_PYTHON'], nested?.get('RIGEL_PYTHON'), overrides.RIGEL_PYTHON]) {
    if (typeof value === 'string' && value !== '') return value
  }
  return undefined
}
