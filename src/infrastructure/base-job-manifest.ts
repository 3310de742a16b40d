// The Job of a `kubernetes-job` block that says nothing of its own.

/** Prefect's `base_job_manifest`; a block's `job` must have all of it. */
export const baseJobManifest: Readonly<Record<string, unknown>> = {
  apiVersion: 'batch/v1',
  kind: 'Job',
  metadata: { labels: {} },
  spec: {
    template: {
      spec: {
        parallelism: 1,
        completions: 1,
        restartPolicy: 'Never',
        containers: [{ name: 'prefect-job', env: [] }],
      },
    },
  },
}
