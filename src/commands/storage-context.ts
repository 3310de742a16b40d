// From the configuration to what storage drivers are given, for the agent and for commands alike.

import type { Config } from '../config/config.ts'
import type { Logger } from '../logger.ts'
import type { StorageContext } from '../storage/context.ts'
import { readProxies } from './connect.ts'

export function buildStorageContext(config: Config, logger: Logger): StorageContext {
  const { environment, storage, paths } = config
  return {
    environment,
    proxies: readProxies(config),
    home: environment.HOME ?? '/',
    limits: { maxBytes: storage.maxBytes, maxFiles: storage.maxFiles, maxSeconds: storage.timeoutSeconds },
    cacheDir: paths.cacheDir,
    cacheLimits: { maxBytes: storage.cacheMaxBytes, maxAgeDays: storage.cacheMaxAgeDays },
    logger,
  }
}
