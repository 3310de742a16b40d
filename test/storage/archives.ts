// Writes zip and tar files as no tool would: with any name, any link, any claim about a size.

import { crc32, deflateRawSync, gzipSync } from 'node:zlib'

export interface ArchiveItem {
  readonly path: string
  readonly bytes: Uint8Array
  /** A symbolic link, whose text are the bytes. */
  readonly isLink?: boolean
  /** tar only: its type flag, such as `1` for a second name (of what the bytes say) or `6` for a FIFO. */
  readonly type?: string
  /** zip only: what the directory claims. */
  readonly claimedSize?: number
  /** zip only: bit 0 is "encrypted". */
  readonly flags?: number
}

export function makeZip(items: readonly ArchiveItem[]): Buffer {
  const files: Buffer[] = []
  const directory: Buffer[] = []
  let offset = 0
  for (const { path, bytes, isLink, claimedSize, flags = 0 } of items) {
    const name = Buffer.from(path)
    const packed = deflateRawSync(bytes)
    const common = Buffer.alloc(26)
    common.writeUInt16LE(20, 0)
    common.writeUInt16LE(0x800 | flags, 2)
    common.writeUInt16LE(8, 4)
    common.writeUInt32LE(crc32(bytes), 10)
    common.writeUInt32LE(packed.length, 14)
    common.writeUInt32LE(claimedSize ?? bytes.length, 18)
    common.writeUInt16LE(name.length, 22)
    const local = Buffer.concat([Buffer.from('PK\x03\x04'), common, name, packed])
    const rest = Buffer.alloc(14)
    rest.writeUInt32LE(((isLink ? 0o120777 : 0o100755) << 16) >>> 0, 6)
    rest.writeUInt32LE(offset, 10)
    directory.push(Buffer.from('PK\x01\x02\x14\x03', 'latin1'), common, rest, name)
    files.push(local)
    offset += local.length
  }
  const central = Buffer.concat(directory)
  const end = Buffer.alloc(18)
  end.writeUInt16LE(items.length, 4)
  end.writeUInt16LE(items.length, 6)
  end.writeUInt32LE(central.length, 8)
  end.writeUInt32LE(offset, 12)
  return Buffer.concat([...files, central, Buffer.from('PK\x05\x06'), end])
}

export function makeTar(items: readonly ArchiveItem[]): Buffer {
  const blocks = items.flatMap(({ path, bytes, isLink, type }) => {
    const hasContent = !isLink && type === undefined
    const header = Buffer.alloc(512)
    header.write(path, 0, 100)
    header.write('0000755\0', 100)
    header.write(`${(hasContent ? bytes.length : 0).toString(8).padStart(11, '0')}\0`, 124)
    header.write('00000000000\0', 136)
    header.write('        ', 148)
    header.write(isLink ? '2' : (type ?? (path.endsWith('/') ? '5' : '0')), 156)
    if (!hasContent) header.write(Buffer.from(bytes).toString(), 157, 100)
    header.write('ustar\x0000', 257)
    const sum = header.reduce((total, byte) => total + byte, 0)
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
    const padding = Buffer.alloc(hasContent ? (512 - (bytes.length % 512)) % 512 : 0)
    return [header, ...(hasContent ? [Buffer.from(bytes), padding] : [])]
  })
  return gzipSync(Buffer.concat([...blocks, Buffer.alloc(1024)]))
}
