// The real server that ours is compared with. What it does by itself is switched off where it would answer otherwise when
// that comes between two steps: a pause that is over is ended by its service or by who resumes it, whoever is first.

import { type PrefectServer, startPrefectServer } from '../support/prefect-server.ts'

const settings = {
  PREFECT_API_SERVICES_PAUSE_EXPIRATIONS_ENABLED: 'false',
  PREFECT_API_SERVICES_LATE_RUNS_ENABLED: 'false',
}

export function startReference(): Promise<PrefectServer> {
  return startPrefectServer('prefect2', { settings })
}
