// The points of a run's life at which the agent is killed: before and after every step.

/** In the order in which a plain command passes them. */
export const killPoints = [
  'claiming:before',
  'claiming:after',
  'answered',
  'claimed:before',
  'claimed:after',
  'confirmed',
  'prepared',
  'running-answered',
  'submitting:before',
  'submitting:after',
  'submitted',
  'running:before',
  'running:after',
  'ended:before',
  'ended:after',
  'reporting',
  'reported',
  'forgotten',
]
