// Certificates for TLS in tests, made on the spot: an authority of one's own, and one for a server that it vouches for.
//
// Node can read X.509 but not write it, so the few DER structures are put together here (RFC 5280).

import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'

export interface Authority {
  /** PEM, for those who are to trust it. */
  readonly certificate: string
  /** PEM pair for a server under these names; `127.0.0.1` and `localhost` unless told otherwise. */
  issue(names?: readonly string[]): { readonly certificate: string; readonly key: string }
}

export function makeAuthority(): Authority {
  const authority = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const name = distinguishedName('Rigel test authority')
  const isAuthority = extension('551d13', sequence(Buffer.from([0x01, 0x01, 0xff])))
  return {
    certificate: buildCertificate({
      subject: name,
      issuer: name,
      key: authority.publicKey,
      signer: authority.privateKey,
      extensions: [isAuthority],
    }),
    issue(names = ['127.0.0.1', 'localhost']) {
      const server = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      const extensions = [extension('551d11', sequence(...names.map(alternativeName)))]
      const subject = distinguishedName(names[0] ?? 'server')
      return {
        certificate: buildCertificate({
          subject,
          issuer: name,
          key: server.publicKey,
          signer: authority.privateKey,
          extensions,
        }),
        key: server.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
      }
    },
  }
}

interface Certified {
  readonly subject: Buffer
  readonly issuer: Buffer
  readonly key: KeyObject
  readonly signer: KeyObject
  readonly extensions: readonly Buffer[]
}

function buildCertificate({ subject, issuer, key, signer, extensions }: Certified): string {
  const algorithm = sequence(objectId('2a8648ce3d040302')) // ecdsa-with-SHA256
  const day = 86_400_000
  const validity = sequence(time(Date.now() - day), time(Date.now() + day))
  const version = der(0xa0, der(0x02, Buffer.from([2])))
  const serial = der(0x02, Buffer.concat([Buffer.from([1]), randomBytes(8)]))
  const publicKey = key.export({ type: 'spki', format: 'der' })
  const toSign = sequence(
    version,
    serial,
    algorithm,
    issuer,
    validity,
    subject,
    publicKey,
    der(0xa3, sequence(...extensions)),
  )
  const certificate = sequence(
    toSign,
    algorithm,
    der(0x03, Buffer.concat([Buffer.from([0]), sign('sha256', toSign, signer)])),
  )
  const lines = certificate.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}

function distinguishedName(commonName: string): Buffer {
  return sequence(der(0x31, sequence(objectId('550403'), der(0x0c, Buffer.from(commonName)))))
}

function alternativeName(name: string): Buffer {
  const isAddress = /^\d+(\.\d+){3}$/.test(name)
  return isAddress ? der(0x87, Buffer.from(name.split('.').map(Number))) : der(0x82, Buffer.from(name))
}

function extension(id: string, value: Buffer): Buffer {
  return sequence(objectId(id), der(0x04, value))
}

function time(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replace(/[-:T]|\.\d+/g, '') // 20260131120000Z
  return der(0x18, Buffer.from(digits))
}

function objectId(hex: string): Buffer {
  return der(0x06, Buffer.from(hex, 'hex'))
}

function sequence(...parts: readonly Buffer[]): Buffer {
  return der(0x30, Buffer.concat(parts))
}

function der(tag: number, value: Buffer): Buffer {
  const { length } = value
  const head =
    length < 128 ? [tag, length] : length < 256 ? [tag, 0x81, length] : [tag, 0x82, length >> 8, length & 255]
  return Buffer.concat([Buffer.from(head), value])
}
