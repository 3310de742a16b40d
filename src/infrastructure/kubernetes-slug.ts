// Makes names and labels that Kubernetes takes, as Prefect does. Pure.
//
// Source: prefect 2.20.25 infrastructure/kubernetes.py (`_slugify_*`) and python-slugify 8. Where python-slugify writes
// foreign scripts in Latin letters by its tables, we know those letters of Latin alphabets that have no accent to drop.

const latin: Readonly<Record<string, string>> = {
  ß: 'ss',
  æ: 'ae',
  œ: 'oe',
  ø: 'o',
  đ: 'd',
  ð: 'd',
  ł: 'l',
  þ: 'th',
  ħ: 'h',
  ı: 'i',
}

function slugify(text: string, disallowed: RegExp, longest: number): string {
  const plain = text
    .replace(/'+/g, '-')
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .replace(/&(?:amp|lt|gt|quot|nbsp);/g, ' ')
    .replace(/&#(?:(\d{1,6})|x([\da-fA-F]{1,5}));/g, (_, decimal, hex) => toCharacter(decimal, hex))
    .toLowerCase()
    .replace(/[ßæœøđðłþħı]/g, letter => latin[letter] ?? letter)
    .replace(/[‘’]/g, '')
    .replace(/(?<=\d),(?=\d)/g, '')
    .replace(disallowed, '-')
    .replace(/-{2,}/g, '-')
  return strip(strip(plain, '-').slice(0, longest), '-')
}

function toCharacter(decimal: string | undefined, hex: string | undefined): string {
  const code = decimal === undefined ? Number.parseInt(hex ?? '', 16) : Number(decimal)
  return code <= 0x10_ff_ff ? String.fromCodePoint(code) : ''
}

function strip(text: string, characters: string): string {
  let [start, end] = [0, text.length]
  while (start < end && characters.includes(text.charAt(start))) start += 1
  while (end > start && characters.includes(text.charAt(end - 1))) end -= 1
  return text.slice(start, end)
}

/** Prefect's `generateName` without its dash: at most 45 characters, possibly none. */
export function slugifyName(name: string): string {
  return slugify(name, /[^a-zA-Z0-9-]+/g, 45)
}

/** `prefix/name`; a part of which nothing is left stays as it is. */
export function slugifyLabelKey(key: string): string {
  const slash = key.indexOf('/')
  const name = slash < 0 ? key : key.slice(slash + 1)
  const prefix = slash < 0 ? '' : key.slice(0, slash)
  const nameSlug = strip(slugify(name, /[^a-zA-Z0-9-_.]+/g, 63), '_-.') || name
  if (prefix === '') return nameSlug
  const prefixSlug = strip(slugify(prefix, /[^a-zA-Z0-9-.]+/g, 253), '_-.') || prefix
  return `${prefixSlug}/${nameSlug}`
}

export function slugifyLabelValue(value: string): string {
  return strip(slugify(value, /[^a-zA-Z0-9-_.]+/g, 63), '_-.') || value
}

/** Whether the API server takes it; where Prefect's slug is none, the label is left out instead of losing the run. */
export function isLabel(key: string, value: string): boolean {
  const word = /^(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)$/
  const slash = key.indexOf('/')
  const [prefix, name] = slash < 0 ? [undefined, key] : [key.slice(0, slash), key.slice(slash + 1)]
  return word.test(name) && (prefix === undefined || isDomain(prefix)) && (value === '' || word.test(value))
}

function isDomain(text: string): boolean {
  const part = /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/
  return text.length <= 253 && text.split('.').every(label => part.test(label))
}
