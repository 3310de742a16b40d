// Where our Jobs differ from those that Prefect 2.20.25 builds for the same block and run: each by decision, with its reason.
//
// The comparison in kubernetes-manifest.test.ts fails for every other difference, and for one that is listed here and
// never met. docs/kubernetes.md tells them to users.

export interface Difference {
  /** Of a path in the manifest, as JSON Pointer. */
  readonly path: RegExp
  readonly reason: string
}

export const differences: readonly Difference[] = [
  {
    path: /^\/metadata\/(?:generateName|name)$/,
    reason: 'a name made of the attempt: a create call that is sent twice makes one Job',
  },
  {
    path: /^\/metadata\/labels\/rigel\.io~1/,
    reason: 'our own labels: whose Job it is, of which claim; the agent finds it by them and watches nothing else',
  },
  { path: /^\/metadata\/annotations/, reason: 'what the next life of the agent must know of the block' },
  {
    path: /^\/spec\/template\/metadata/,
    reason: "the run's labels on the pod as well, so that pods can be found, counted and charged by them",
  },
  { path: /^\/spec\/backoffLimit$/, reason: '0 unless set: Kubernetes would run a flow that crashes six more times' },
  {
    path: /^\/spec\/(?:template\/spec\/)?(?:parallelism|completions)$/,
    reason: 'in their right place: in the pod, where Prefect has them, the API server ignores them',
  },
  { path: /^\/spec\/suspend$/, reason: 'created suspended: secrets and code come first, and are owned by the Job' },
  {
    path: /^\/spec\/ttlSecondsAfterFinished$/,
    reason: "a day at first; the block's own time is set once the end is on record, so that no end is lost",
  },
  {
    path: /^\/spec\/template\/spec\/activeDeadlineSeconds$/,
    reason: 'job_watch_timeout_seconds is kept by the cluster: Prefect stops to look and leaves the Job running',
  },
  {
    path: /^\/spec\/template\/spec\/containers\/0\/env\/\d+\/(?:value|valueFrom)$/,
    reason: "values of variables come from the Job's Secret, not in plain text",
  },
  {
    path: /^\/spec\/template\/spec\/(?:volumes|containers\/0\/(?:volumeMounts|workingDir))/,
    reason: 'code and files that the agent has fetched are mounted',
  },
]
