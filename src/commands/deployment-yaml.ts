// The YAML file that `prefect deployment build` of Prefect 2.20 writes: same fields, same order, same heads.

import { stringify } from 'yaml'

export interface DeploymentYaml {
  readonly flow: string
  /** By the names of the file. */
  readonly fields: Readonly<Record<string, unknown>>
  /** The infrastructure is no block of its own, so people may edit it. */
  readonly isInfrastructureEditable: boolean
}

const queueComment = "# The work queue that will handle this deployment's runs"
const editable = [
  'name',
  'description',
  'version',
  'work_queue_name',
  'work_pool_name',
  'tags',
  'parameters',
  'schedule',
  'schedules',
  'is_schedule_active',
  'infra_overrides',
]
const fixed = [
  'flow_name',
  'manifest_path',
  'infrastructure',
  'storage',
  'path',
  'entrypoint',
  'parameter_openapi_schema',
  'timestamp',
  'triggers',
  'enforce_parameter_schema',
]

export function writeDeploymentYaml({ flow, fields, isInfrastructureEditable }: DeploymentYaml): string {
  const top = isInfrastructureEditable ? [...editable, 'infrastructure'] : editable
  const rest = fixed.filter(field => !top.includes(field))
  const shown = (field: string) =>
    `${field === 'work_queue_name' ? `${queueComment}\n` : ''}${writeField(field, fields)}`
  return [
    `###\n### A complete description of a Prefect Deployment for flow '${flow.replaceAll(/[\r\n]/g, ' ')}'\n###\n`,
    ...top.map(shown),
    '\n###\n### DO NOT EDIT BELOW THIS LINE\n###\n',
    ...rest.map(field => writeField(field, fields)),
  ].join('')
}

function writeField(field: string, fields: Readonly<Record<string, unknown>>): string {
  // 1.1 is what PyYAML reads: a time or a `yes` that is a text must be quoted there.
  const style = { indentSeq: false, singleQuote: true, lineWidth: 0, version: '1.1' } as const
  return stringify({ [field]: fields[field] ?? null }, style)
}
