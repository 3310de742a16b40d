// Where the embedded server answers otherwise than Prefect 2.20.25, by step of the conversation, and why.

export const differences: Readonly<Record<string, string>> = {
  'run deployment once':
    'with an idempotency key the reference answers null for job variables that were not given, else {}; ours says {}',
  'run that waits for its retry': 'the reference keeps no data with a state that it writes by itself; ours keeps it',
  'its states': 'the same',
  'task run as it is': "the reference takes artifact_type and artifact_description out of a task's stored result",
  'it finds the cached state': 'the same',
}
