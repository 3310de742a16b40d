// Values for tests that walk all settings.

/** A text that fits, by the sentence that says what is expected. */
export function buildSample(expected: string): string {
  if (expected.includes('URL')) return 'http://a/api'
  if (expected.includes('JSON')) return '{}'
  if (expected.includes('codes')) return '500'
  if (expected.includes('number')) return '7'
  if (expected.startsWith('one of')) return expected.split(' ')[2]?.replace(',', '') ?? ''
  return 'true'
}
