// The embedded server as a process of its own, for tests that kill it: `node serve.ts DATABASE` prints its URL.

import { createLogger } from '../../src/logger.ts'
import { startServer } from '../../src/server/server.ts'

const logger = createLogger({ level: 'ERROR', pretty: false, destination: process.stderr })
const databasePath = process.argv[2] ?? ''
const server = await startServer({ databasePath, port: 0, logger }, new AbortController().signal)
console.log(server.apiUrl)
