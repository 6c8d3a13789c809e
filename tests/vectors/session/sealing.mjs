// Makes sealing.json: `node tests/vectors/session/sealing.mjs > tests/vectors/session/sealing.json`
//
// Written from filter/src/session/PROTOCOL.md alone, with the ChaCha20-Poly1305 of Node's OpenSSL:
// a second opinion on the bytes, and an example for clients. It is needed only to make new vectors.
import { createCipheriv } from 'node:crypto';
import { readFileSync } from 'node:fs';

const hex = (bytes) => Buffer.from(bytes).toString('hex');
const unhex = (digits) => Buffer.from(digits.replaceAll(' ', ''), 'hex');
const u64le = (number) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(number));
  return bytes;
};
const DIRECTIONS = { client_to_server: 0, server_to_client: 1 };

function seal({ direction, key, number, header, trailer, plaintext }) {
  const nonce = Buffer.concat([Buffer.alloc(4), u64le(number)]);
  const associated = Buffer.concat([
    Buffer.from([DIRECTIONS[direction]]), u64le(number), header, trailer,
  ]);
  const cipher = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: 16 });
  cipher.setAAD(associated, { plaintextLength: plaintext.length });
  const text = Buffer.concat([cipher.update(plaintext), cipher.final()]);
  return { nonce, associated, body: Buffer.concat([text, cipher.getAuthTag()]) };
}

function body(name, direction, key, number, header, trailer, plaintext) {
  const sealed = seal({ direction, key, number, header, trailer, plaintext });
  return {
    name, direction, key: hex(key), number: String(number), header: hex(header),
    trailer: hex(trailer), plaintext: hex(plaintext), nonce: hex(sealed.nonce),
    associated_data: hex(sealed.associated), body: hex(sealed.body),
  };
}

// Reflected CRCs, and Adler-32.
function crc(bytes, polynomial) {
  let sum = 0xffffffff;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit += 1) sum = (sum >>> 1) ^ (sum & 1 ? polynomial : 0);
  }
  return ~sum >>> 0;
}
const crc32 = (bytes) => crc(bytes, 0xedb88320);
const crc32c = (bytes) => crc(bytes, 0x82f63b78);
function adler32(bytes) {
  let [a, b] = [1, 0];
  for (const byte of bytes) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  return ((b << 16) | a) >>> 0;
}

// Frames of shipped layouts (envoy-config/layouts), sealed.
const layouts = {
  game({ flags, command, sequence, status, direction, key, number, plaintext }) {
    const header = Buffer.alloc(20);
    header.writeUInt16BE(0x4d47, 0);
    header.writeUInt8(1, 2);
    header.writeUInt8(flags | 0x20, 3);
    header.writeUInt32BE(20 + plaintext.length + 16, 4);
    header.writeUInt32BE(command, 8);
    header.writeUInt32BE(sequence, 12);
    header.writeUInt16BE(status, 16);
    const trailer = Buffer.alloc(0);
    const { body } = seal({ direction, key, number, header, trailer, plaintext });
    return Buffer.concat([header, body]);
  },
  battle({ kind, command, sequence, status, zone, direction, key, number, plaintext }) {
    const header = Buffer.alloc(18);
    header.writeUInt16BE(0xba77, 0);
    header.writeUInt8(kind, 2);
    header.writeUInt8(0x02, 3);
    header.writeUIntLE(plaintext.length + 16, 4, 3);
    header.writeUInt8(3, 7);
    header.writeUInt16LE(command, 8);
    header.writeInt16LE(status, 10);
    header.writeUInt32LE(sequence, 12);
    header.writeUInt16BE(zone, 16);
    // The CRC counts as zero while the frame is sealed, and is taken over what was sealed.
    const { body } = seal({ direction, key, number, header, trailer: Buffer.alloc(4), plaintext });
    const trailer = Buffer.alloc(4);
    trailer.writeUInt32LE(crc32c(Buffer.concat([header, body])));
    return Buffer.concat([header, body, trailer]);
  },
  device({ flags, command, status, serial, direction, key, number, plaintext }) {
    const header = Buffer.alloc(20);
    header.write('DEV\0', 0, 'latin1');
    header.writeUInt8(header.length - 4, 4);
    header.writeUInt16BE(header.length + plaintext.length + 16 + 5 - 4, 5);
    header.writeUInt8(command, 7);
    header.writeUInt8(status, 8);
    header.writeUInt8(flags, 9);
    serial.copy(header, 10);
    const { body } = seal({
      direction, key, number, header, trailer: unhex('00000000 03'), plaintext,
    });
    header.writeUInt32BE(adler32(header), 16);
    const sum = Buffer.alloc(4);
    sum.writeUInt32LE(crc32(Buffer.concat([header.subarray(4), body])));
    return Buffer.concat([header, body, sum, Buffer.from([3])]);
  },
};

const noise = JSON.parse(readFileSync(new URL('noise.json', import.meta.url)))[0];
const keys = {
  client_to_server: unhex(noise.client_to_server_key),
  server_to_client: unhex(noise.server_to_client_key),
};

function frame(name, layout, direction, number, plaintext, fields) {
  const key = keys[direction];
  const bytes = layouts[layout]({ direction, key, number, plaintext, ...fields });
  return {
    name, layout, direction, key: hex(key), number: String(number), plaintext: hex(plaintext),
    frame: hex(bytes),
  };
}

const counting = (length) => Buffer.from(Array.from({ length }, (_, at) => at & 0xff));
const rfc = Buffer.from(Array.from({ length: 32 }, (_, at) => 0x80 + at));
const none = Buffer.alloc(0);
const ascii = (text) => Buffer.from(text, 'latin1');

console.log(JSON.stringify({
  bodies: [
    body('the first frame of a client', 'client_to_server', rfc, 0, ascii('header'), none, ascii('hello')),
    body('the first frame of a server', 'server_to_client', rfc, 0, ascii('header'), none, ascii('hello')),
    body('the second frame', 'client_to_server', rfc, 1, ascii('header'), none, ascii('hello')),
    body('a trailer', 'client_to_server', rfc, 2, ascii('header'), unhex('00000000 03'), ascii('hello')),
    body('no body', 'client_to_server', rfc, 3, ascii('header'), none, none),
    body('no header', 'server_to_client', rfc, 4, none, none, ascii('hello')),
    body('one block', 'client_to_server', rfc, 5, counting(16), none, counting(64)),
    body('three blocks and a byte', 'client_to_server', rfc, 6, counting(17), none, counting(193)),
    body('a kilobyte', 'server_to_client', rfc, 7, counting(20), counting(4), counting(1024)),
    body('a number beyond 32 bits', 'client_to_server', rfc, 0x1_0000_0001n, ascii('header'), none, ascii('hello')),
    body('the last number', 'client_to_server', rfc, 0xffff_ffff_ffff_fffen, ascii('header'), none, ascii('hello')),
  ],
  frames: [
    frame('game: the first request', 'game', 'client_to_server', 0, ascii('enter'),
      { flags: 0, command: 1001, sequence: 2, status: 0 }),
    frame('game: its reply', 'game', 'server_to_client', 0, ascii('welcome'),
      { flags: 1, command: 1001, sequence: 2, status: 0 }),
    frame('game: an error reply without a body', 'game', 'server_to_client', 1, none,
      { flags: 9, command: 1002, sequence: 3, status: 5 }),
    frame('game: a goodbye', 'game', 'server_to_client', 2, ascii('maintenance'),
      { flags: 12, command: 2, sequence: 0, status: 1 }),
    frame('battle: a request, its checksum in the trailer', 'battle', 'client_to_server', 0, ascii('fire'),
      { kind: 1, command: 300, sequence: 9, status: 0, zone: 4 }),
    frame('device: a request, checksums in header and trailer', 'device', 'client_to_server', 0, ascii('on'),
      { flags: 0, command: 1, status: 0, serial: unhex('0102030405ff') }),
  ],
}, null, 2));
