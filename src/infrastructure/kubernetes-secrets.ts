// Takes the values of a run's variables out of the manifest and into its Secret. Pure.
//
// Nobody can tell by a variable's name whether it is a secret, so all of them go, but for those that are known to be none.
// Names and order stay as they are. It comes last, so that a block's customizations see the manifest that Prefect makes.

import type { RunSpec } from './infrastructure.ts'
import type { EnvEntry, JobManifest } from './kubernetes-manifest.ts'

/** Ids, places and switches that Prefect or this agent set themselves. */
const openNames =
  /^(?:PREFECT__FLOW_RUN_ID|RIGEL_WORKSPACE|RIGEL_PARAMETERS_FILE|PREFECT_LOGGING_[A-Z_]*LEVEL|PREFECT_HOME)$/

/** Moves them and gives the Secret's data by key. Changes the manifest. */
export function moveSecrets(manifest: JobManifest, env: RunSpec['env'], secretName: string): Record<string, string> {
  const secrets: Record<string, string> = {}
  const [container] = manifest.spec.template.spec.containers
  const names = new Set<string>()
  container.env = (container.env ?? []).map((entry, index): EnvEntry => {
    const { name, value, ...rest } = entry
    const isOpen = value === undefined || value === '' || !Object.hasOwn(env, name) || isPublic(name, value)
    const stays = isOpen || mentions(value, names)
    names.add(name)
    if (stays) return entry
    const key = `env-${index}`
    secrets[key] = value
    return { name, valueFrom: { secretKeyRef: { name: secretName, key } }, ...rest }
  })
  return secrets
}

function isPublic(name: string, value: string): boolean {
  if (name === 'PREFECT_API_URL') return URL.canParse(value) && new URL(value).username === '' && !value.includes('?')
  return openNames.test(name)
}

/** `$(NAME)` of an earlier variable: Kubernetes puts its value in, but only where it sees the text. */
function mentions(value: string, names: ReadonlySet<string>): boolean {
  return [...value.matchAll(/\$\(([^()]+)\)/g)].some(([, name]) => names.has(name ?? ''))
}
