// Writes down what a real Prefect 2.20.25 server answers: `node test/server/record.ts`, after a change of conversation.ts.

import { writeFile } from 'node:fs/promises'
import { conversation } from './conversation.ts'
import { converse } from './converse.ts'
import { startReference } from './reference.ts'

await using server = await startReference()
const exchanges = await converse(server.apiUrl, conversation)
const lines = exchanges.map(exchange => JSON.stringify(exchange))
await writeFile(new URL('recorded/prefect-2.20.25.json', import.meta.url), `[\n${lines.join(',\n')}\n]\n`)
