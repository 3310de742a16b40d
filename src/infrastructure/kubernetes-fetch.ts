// Lets the pod fetch its code by itself where there is too much of it for a ConfigMap: an init container of Rigel's own
// image runs `rigel fetch` into a volume that the flow's container then sees as its workspace. Pure.
//
//   volume rigel-code   /rigel/fetched (init container)   code/            ──> /rigel/workspace (flow, read-only)
//                                                         state/, .cache/      of the fetching itself
//   Secret, key `from`  /rigel/from/from.json             a block or pull steps, with their credentials

import type { CodeRecipe } from './infrastructure.ts'
import { type Container, type EnvEntry, type JobPlan, podFolders } from './kubernetes-manifest.ts'

export const fetchContainer = 'rigel-fetch'

/** Of the Secret's data. */
export const recipeKey = 'from'

const folder = '/rigel/fetched'
const recipeFolder = '/rigel/from'
const recipeFile = 'from.json'
/** The user of our image, for pods whose user is root: nothing that is fetched is fetched as root. */
const user = 10_001

/** Changes the plan's manifest; gives the text that belongs into its Secret as `recipeKey`. */
export function addFetching(
  plan: JobPlan,
  { recipe, image, workingDir }: { readonly recipe: CodeRecipe; readonly image: string; readonly workingDir: string },
  secretName: string,
): string {
  const pod = plan.manifest.spec.template.spec
  const [container] = pod.containers
  const items = [{ key: recipeKey, path: recipeFile }]
  pod.volumes = [
    ...(pod.volumes ?? []),
    { name: 'rigel-code', emptyDir: {} },
    { name: 'rigel-from', secret: { secretName, items, defaultMode: 0o444 } },
  ]
  // First of all, for other init containers may want the code as well.
  pod.initContainers = [
    buildFetchContainer(container, recipe, image, pod.securityContext),
    ...(pod.initContainers ?? []),
  ]
  const mount = { name: 'rigel-code', mountPath: podFolders.workspace, subPath: 'code', readOnly: true }
  container.volumeMounts = [...(container.volumeMounts ?? []), mount]
  container.workingDir ??= workingDir
  const { from } = recipe
  return JSON.stringify(from.kind === 'block' ? { block_type_slug: from.slug, data: from.data } : from.steps)
}

function buildFetchContainer(flow: Container, { from }: CodeRecipe, image: string, podSecurity: unknown): Container {
  const file = `${recipeFolder}/${recipeFile}`
  const what = from.kind === 'block' ? ['--block-file', file] : ['--steps-file', file]
  const path = from.kind === 'block' && from.path !== undefined ? [`--path=${from.path}`] : []
  const isRoot =
    typeof podSecurity === 'object' && podSecurity !== null && 'runAsUser' in podSecurity && podSecurity.runAsUser === 0
  return {
    name: fetchContainer,
    image,
    args: ['fetch', `${folder}/code`, ...what, ...path, '--share'],
    env: buildEnv(flow.env ?? []),
    ...(flow.envFrom === undefined ? {} : { envFrom: flow.envFrom }),
    volumeMounts: [
      { name: 'rigel-code', mountPath: folder },
      { name: 'rigel-from', mountPath: recipeFolder, readOnly: true },
    ],
    // Asked for only while no other container runs, so they cost the pod nothing; a quota may want to see them.
    resources: { requests: { cpu: '100m', memory: '128Mi' }, limits: { cpu: '2', memory: '1Gi' } },
    // As the restricted Pod Security rules have it, whatever the pod's own may be.
    securityContext: {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      runAsNonRoot: true,
      ...(isRoot ? { runAsUser: user, runAsGroup: user } : {}),
      capabilities: { drop: ['ALL'] },
      seccompProfile: { type: 'RuntimeDefault' },
    },
  }
}

/**
 * The flow's variables: the API's address and key, proxies, credentials that the block does not hold. Those of an agent or a
 * flow alone mean nothing to it, and it can write nowhere but into the volume.
 */
function buildEnv(env: readonly EnvEntry[]): EnvEntry[] {
  const kept = env.filter(({ name }) => !/^(RIGEL_(?!STORAGE_)|HOME$|TMPDIR$|PREFECT_HOME$|XDG_|NODE_)/.test(name))
  const own = {
    HOME: folder,
    TMPDIR: folder,
    PREFECT_HOME: `${folder}/.prefect`,
    RIGEL_STATE_DIR: `${folder}/state`,
    RIGEL_CACHE_DIR: `${folder}/.cache`,
  }
  return [...kept, ...Object.entries(own).map(([name, value]) => ({ name, value }))]
}
