// Blocks and runs for the comparison with Prefect: each field, each shortcut, customizations in both forms, slugs.

export interface Case {
  readonly what: string
  readonly block: Readonly<Record<string, unknown>>
  readonly run?: {
    readonly name?: string
    readonly env?: Readonly<Record<string, string>>
    readonly labels?: Readonly<Record<string, string>>
    readonly command?: readonly string[]
  }
}

const base = (overrides: { metadata?: object; spec?: object; pod?: object; container?: object } = {}) => ({
  apiVersion: 'batch/v1',
  kind: 'Job',
  metadata: { labels: {}, ...overrides.metadata },
  spec: {
    ...overrides.spec,
    template: {
      spec: {
        parallelism: 1,
        completions: 1,
        restartPolicy: 'Never',
        ...overrides.pod,
        containers: [{ name: 'prefect-job', env: [], ...overrides.container }],
      },
    },
  },
})

export const cases: readonly Case[] = [
  { what: 'nothing set', block: {} },
  {
    what: 'every field',
    block: {
      image: 'example.com/flow:1',
      namespace: 'flows',
      service_account_name: 'runner',
      image_pull_policy: 'Always',
      finished_job_ttl: 60,
      job_watch_timeout_seconds: 3600,
      pod_watch_timeout_seconds: 5,
      stream_output: false,
    },
    run: { env: { A: '1', PREFECT_API_KEY: 'pnu_secret' }, labels: { 'prefect.io/flow-name': 'My Flow' } },
  },
  { what: 'a time to live of nothing', block: { finished_job_ttl: 0 } },
  {
    what: 'texts for numbers',
    block: { finished_job_ttl: '30', pod_watch_timeout_seconds: '5', stream_output: 'false' },
  },
  {
    what: 'a manifest of its own',
    block: {
      image: 'example.com/flow:2',
      job: base({
        metadata: { namespace: 'elsewhere', labels: { team: 'data' }, annotations: { a: 'b' } },
        spec: { backoffLimit: 2, activeDeadlineSeconds: 600 },
        container: {
          image: 'example.com/manifest:1',
          env: [{ name: 'FIRST', value: 'here' }],
          resources: { limits: { memory: '64Mi' } },
        },
      }),
    },
    run: { env: { SECOND: 'there' } },
  },
  {
    what: 'the image and namespace of the manifest',
    block: { job: base({ metadata: { namespace: 'ns' }, container: { image: 'i:1' } }) },
  },
  {
    what: 'two containers and volumes',
    block: {
      job: base({ pod: { volumes: [{ name: 'scratch', emptyDir: {} }], terminationGracePeriodSeconds: 5 } }),
      customizations: [
        { op: 'add', path: '/spec/template/spec/containers/-', value: { name: 'side', image: 'side:1' } },
      ],
    },
  },
  {
    what: 'customizations as a list',
    block: {
      customizations: [
        { op: 'add', path: '/spec/template/spec/nodeSelector', value: { disk: 'ssd' } },
        { op: 'replace', path: '/spec/template/spec/containers/0/env/0/value', value: 'patched' },
        { op: 'add', path: '/spec/backoffLimit', value: 3 },
        { op: 'copy', from: '/metadata/labels', path: '/spec/template/metadata', value: undefined },
        { op: 'remove', path: '/spec/template/spec/containers/0/args' },
        { op: 'test', path: '/kind', value: 'Job' },
      ].map(operation => JSON.parse(JSON.stringify(operation))),
    },
    run: { env: { A: 'x' }, labels: { a: 'b' } },
  },
  {
    what: 'customizations as text',
    block: { customizations: '[{"op":"add","path":"/spec/template/spec/hostNetwork","value":true}]' },
  },
  { what: 'an empty list of customizations as text', block: { customizations: '[]' } },
  {
    what: 'a suspended Job, for a queueing system',
    block: { job: base({ metadata: { labels: { 'kueue.x-k8s.io/queue-name': 'q' } }, spec: { suspend: true } }) },
  },
  {
    what: 'an env patch that appends',
    block: {
      customizations: [
        {
          op: 'add',
          path: '/spec/template/spec/containers/0/env/-',
          value: { name: 'LAST', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
        },
      ],
    },
    run: { env: { A: '1' } },
  },
  {
    what: 'variables that Kubernetes expands',
    block: {},
    run: { env: { USER: 'me', URL: 'http://$(USER)@host', ODD: '$(NOBODY) $$(USER)' } },
  },
  ...[
    'My Run/1!',
    'UPPER lower',
    'dots.and_underscores',
    "it's a run",
    'x'.repeat(80),
    '-- dashes --',
    'ünïcödé straße',
    'Łódź œuvre ø',
    '1,000 runs',
    'a&amp;b&#38;c&#x41;',
    'ends with dots...',
    '9 lives',
  ].map(name => ({
    what: `the name ${JSON.stringify(name.slice(0, 20))}`,
    block: {},
    run: {
      name,
      labels: { 'prefect.io/flow-run-name': name, [`Key ${name}`.slice(0, 70)]: name, [`pre fix/${name}`]: 'v' },
    },
  })),
  { what: 'a label with two slashes', block: {}, run: { labels: { 'a.io/b/c': 'd' } } },
  {
    what: 'a date as a label',
    block: {},
    run: { labels: { 'prefect.io/deployment-updated': '2026-11-22T20:54:41.154234Z' } },
  },
]

/** Blocks that both refuse. */
export const refusals: readonly (Case & { readonly says: RegExp })[] = [
  {
    what: 'a manifest without its parts',
    block: { job: { kind: 'Job' } },
    says: /missing required attributes at the following paths: \/apiVersion, \/metadata, \/spec/,
  },
  {
    what: 'a manifest of another kind',
    block: { job: { ...base(), kind: 'Pod' } },
    says: /incompatible values for the following attributes: \/kind must have value ['"]Job['"]/,
  },
  {
    what: 'another restart policy',
    block: { job: base({ pod: { restartPolicy: 'OnFailure' } }) },
    says: /\/spec\/template\/spec\/restartPolicy must have value ['"]Never['"]/,
  },
  {
    what: 'a container of another name',
    block: { job: base({ container: { name: 'main' } }) },
    says: /\/spec\/template\/spec\/containers\/0\/name must have value ['"]prefect-job['"]/,
  },
  { what: 'customizations that are no JSON', block: { customizations: 'x' }, says: /customizations/ },
  {
    what: 'a customization that does not fit',
    block: { customizations: [{ op: 'replace', path: '/nope', value: 1 }] },
    says: /nope/,
  },
  { what: 'an unknown pull policy', block: { image_pull_policy: 'Sometimes' }, says: /image_pull_policy/ },
  { what: 'a time that is none', block: { finished_job_ttl: 'soon' }, says: /finished_job_ttl/ },
]
