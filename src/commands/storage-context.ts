// From the configuration to what storage drivers are given, for the agent and for commands alike.

import type { Config } from '../config/config.ts'
import type { Logger } from '../logger.ts'
import type { StorageContext } from '../storage/context.ts'

export function buildStorageContext({ environment, storage, paths }: Config, logger: Logger): StorageContext {
  return {
    environment,
    home: environment.HOME ?? '/',
    limits: { maxBytes: storage.maxBytes, maxFiles: storage.maxFiles, maxSeconds: storage.timeoutSeconds },
    cacheDir: paths.cacheDir,
    cacheLimits: { maxBytes: storage.cacheMaxBytes, maxAgeDays: storage.cacheMaxAgeDays },
    logger,
  }
}
