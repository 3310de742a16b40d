// Many agents on one queue, killed at random moments; `npm run soak` does the same many times over.

import { test } from 'node:test'
import { startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { raceAgents } from './race.ts'
import { openStage } from './stage.ts'

for (const which of ['prefect2', 'prefect3'] as const) {
  test(`three agents that race for one queue of a ${which} server start each run once, whoever is killed`, {
    ...needs(which),
  }, async () => {
    await using server = await startPrefectServer(which)
    await using stage = await openStage(server.apiUrl)
    await raceAgents(stage, 8)
  })
}
