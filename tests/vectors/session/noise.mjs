// Checks noise.json and resume.json: `node tests/vectors/session/noise.mjs`
//
// Both sides of Noise_NK_25519_ChaChaPoly_BLAKE2s, and of Noise_NKpsk0_25519_ChaChaPoly_BLAKE2s for
// those who come back (Noise Protocol Framework, revision 34), written
// from filter/src/session/PROTOCOL.md with Node's OpenSSL: a second opinion on the bytes, and an
// example for clients in languages without a Noise library.
import {
  createCipheriv, createDecipheriv, createHash, createHmac, createPrivateKey, createPublicKey,
  diffieHellman,
} from 'node:crypto';
import { readFileSync } from 'node:fs';
import { strict as assert } from 'node:assert';

const LOGIN = { protocol: 'Noise_NK_25519_ChaChaPoly_BLAKE2s', kind: 1 };
const RESUME = { protocol: 'Noise_NKpsk0_25519_ChaChaPoly_BLAKE2s', kind: 2 };
const hex = (bytes) => Buffer.from(bytes).toString('hex');
const unhex = (digits) => Buffer.from(digits, 'hex');
const hash = (...parts) => createHash('blake2s256').update(Buffer.concat(parts)).digest();
const hmac = (key, ...parts) => createHmac('blake2s256', key).update(Buffer.concat(parts)).digest();

// X25519 keys as Node wants them: in DER.
const PKCS8 = unhex('302e020100300506032b656e04220420');
const SPKI = unhex('302a300506032b656e032100');
const privateKey = (raw) => createPrivateKey({ key: Buffer.concat([PKCS8, raw]), format: 'der', type: 'pkcs8' });
const publicKey = (raw) => createPublicKey({ key: Buffer.concat([SPKI, raw]), format: 'der', type: 'spki' });
const publicOf = (raw) =>
  createPublicKey(privateKey(raw)).export({ format: 'der', type: 'spki' }).subarray(SPKI.length);
const dh = (own, theirs) => diffieHellman({ privateKey: privateKey(own), publicKey: publicKey(theirs) });

class Handshake {
  constructor(protocol, prologue, serverStatic) {
    // The protocol's name is longer than a hash, so it is hashed.
    this.chaining = hash(Buffer.from(protocol));
    this.transcript = this.chaining;
    this.mixHash(prologue);
    this.mixHash(serverStatic);
  }

  mixHash(bytes) {
    this.transcript = hash(this.transcript, bytes);
  }

  mixKey(secret) {
    [this.chaining, this.key] = this.derive(secret);
    this.number = 0;
  }

  // The token psk.
  mixKeyAndHash(secret) {
    const [chaining, mixed, key] = this.derive(secret);
    this.mixHash(mixed);
    [this.chaining, this.key, this.number] = [chaining, key, 0];
  }

  // The token e: where there is a pre-shared key, the public key is mixed into the key too.
  mixEphemeral(bytes, psk) {
    this.mixHash(bytes);
    if (psk) this.mixKey(bytes);
  }

  derive(secret) {
    const temporary = hmac(this.chaining, secret);
    const first = hmac(temporary, unhex('01'));
    const second = hmac(temporary, first, unhex('02'));
    return [first, second, hmac(temporary, second, unhex('03'))];
  }

  nonce() {
    const nonce = Buffer.alloc(12);
    nonce.writeBigUInt64LE(BigInt(this.number), 4);
    this.number += 1;
    return nonce;
  }

  encrypt(text) {
    const cipher = createCipheriv('chacha20-poly1305', this.key, this.nonce(), { authTagLength: 16 });
    cipher.setAAD(this.transcript, { plaintextLength: text.length });
    const sealed = Buffer.concat([cipher.update(text), cipher.final(), cipher.getAuthTag()]);
    this.mixHash(sealed);
    return sealed;
  }

  decrypt(sealed) {
    const decipher = createDecipheriv('chacha20-poly1305', this.key, this.nonce(), { authTagLength: 16 });
    const length = sealed.length - 16;
    decipher.setAAD(this.transcript, { plaintextLength: length });
    decipher.setAuthTag(sealed.subarray(length));
    const text = Buffer.concat([decipher.update(sealed.subarray(0, length)), decipher.final()]);
    this.mixHash(sealed);
    return text;
  }

  // The keys of both directions: client to server, server to client.
  split() {
    return this.derive(Buffer.alloc(0));
  }
}

// A token's id behind its length; nothing in a login.
const named = ({ token_id }) =>
  token_id ? Buffer.concat([Buffer.from([token_id.length / 2]), unhex(token_id)]) : Buffer.alloc(0);

function prologue(vector) {
  const { layout, audience, key_id } = vector;
  const length = Buffer.alloc(2);
  length.writeUInt16BE(Buffer.byteLength(audience));
  return Buffer.concat([
    Buffer.from('meshgate-session\0'), Buffer.from([1, 2]),
    Buffer.from([Buffer.byteLength(layout)]), Buffer.from(layout),
    length, Buffer.from(audience),
    Buffer.from([Buffer.byteLength(key_id)]), Buffer.from(key_id), named(vector),
  ]);
}

const read = (name) => JSON.parse(readFileSync(new URL(name, import.meta.url)));
const resumes = read('resume.json');
const vectors = [...read('noise.json'), ...resumes.noise];
for (const vector of vectors) {
  const { protocol, kind } = vector.token_id ? RESUME : LOGIN;
  const psk = vector.token_id && unhex(vector.token_secret);
  assert.equal(vector.protocol, protocol);
  assert.equal(hex(prologue(vector)), vector.prologue);
  const serverStatic = unhex(vector.server_static_public);
  assert.equal(hex(publicOf(unhex(vector.server_static_private))), hex(serverStatic));
  const keyId = Buffer.from(vector.key_id);

  // The client: -> e, es; with a token -> psk, e, es
  const client = new Handshake(protocol, unhex(vector.prologue), serverStatic);
  const ephemeral = unhex(vector.client_ephemeral_private);
  if (psk) client.mixKeyAndHash(psk);
  client.mixEphemeral(publicOf(ephemeral), psk);
  client.mixKey(dh(ephemeral, serverStatic));
  const loginMessage = Buffer.concat([
    Buffer.from([1, kind, keyId.length]), keyId, named(vector),
    publicOf(ephemeral), client.encrypt(unhex(vector.login_request)),
  ]);
  assert.equal(hex(loginMessage), vector.login_message, `${vector.name}: login message`);

  // The companion: the same, then <- e, ee
  const server = new Handshake(protocol, unhex(vector.prologue), serverStatic);
  const noise = loginMessage.subarray(3 + keyId.length + named(vector).length);
  const theirs = noise.subarray(0, 32);
  if (psk) server.mixKeyAndHash(psk);
  server.mixEphemeral(theirs, psk);
  server.mixKey(dh(unhex(vector.server_static_private), theirs));
  const request = server.decrypt(noise.subarray(32));
  assert.equal(hex(request), vector.login_request, `${vector.name}: login request`);
  const answering = unhex(vector.server_ephemeral_private);
  server.mixEphemeral(publicOf(answering), psk);
  server.mixKey(dh(answering, theirs));
  const reply = Buffer.concat([
    Buffer.from([1, kind]), publicOf(answering), server.encrypt(unhex(vector.login_reply)),
  ]);
  assert.equal(hex(reply), vector.reply_message, `${vector.name}: reply message`);

  // The client again.
  client.mixEphemeral(reply.subarray(2, 34), psk);
  client.mixKey(dh(ephemeral, reply.subarray(2, 34)));
  assert.equal(hex(client.decrypt(reply.subarray(34))), vector.login_reply, `${vector.name}: login reply`);
  for (const side of [client, server]) {
    const [clientToServer, serverToClient] = side.split();
    assert.equal(hex(clientToServer), vector.client_to_server_key, `${vector.name}: client's key`);
    assert.equal(hex(serverToClient), vector.server_to_client_key, `${vector.name}: server's key`);
  }
}

// Those who come back in mode ticket.
for (const vector of resumes.ticket) {
  const sha256 = createHash('sha256').update(vector.credential).digest();
  const proof = createHmac('sha256', unhex(vector.token_secret))
    .update('meshgate resume proof\0').update(unhex(vector.token_id)).update(sha256).digest();
  const message = Buffer.concat([Buffer.from([1, 2]), named(vector), proof]);
  assert.equal(hex(message), vector.resume_message, `${vector.name}: resume message`);
}
console.log(`${vectors.length} handshakes and ${resumes.ticket.length} proofs agree`);
