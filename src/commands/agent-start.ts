// `rigel agent start`: one agent against the server that the user already runs.

import { USAGE_ERROR } from '../config/config-error.ts'
import { UserError } from '../errors.ts'
import type { AgentStart } from './agent-options.ts'
import { connect } from './connect.ts'
import { type Context, createDaemonLogger } from './context.ts'
import { serveAgent } from './serve-agent.ts'

export async function startAgent(context: Context, start: AgentStart): Promise<void> {
  if (start.queues.length === 0 && start.prefixes.length === 0) {
    throw new UserError('No work queue is named.', {
      hint: 'Say which ones to poll: `-q NAME`, or `-m PREFIX` for all whose names start so.',
      exitCode: USAGE_ERROR,
    })
  }
  const logger = createDaemonLogger(context)
  for (const warning of context.config.warnings) logger.warn(warning)
  await using client = await connect(context.config, logger)
  const { left } = await serveAgent(context, start, client, logger, context.signals)
  logger.info({ runs_left: left }, 'agent stopped')
}
