// Checks noise.json: `node tests/vectors/session/noise.mjs`
//
// Both sides of Noise_NK_25519_ChaChaPoly_BLAKE2s (Noise Protocol Framework, revision 34), written
// from filter/src/session/PROTOCOL.md with Node's OpenSSL: a second opinion on the bytes, and an
// example for clients in languages without a Noise library.
import {
  createCipheriv, createDecipheriv, createHash, createHmac, createPrivateKey, createPublicKey,
  diffieHellman,
} from 'node:crypto';
import { readFileSync } from 'node:fs';
import { strict as assert } from 'node:assert';

const PROTOCOL = Buffer.from('Noise_NK_25519_ChaChaPoly_BLAKE2s');
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
  constructor(prologue, serverStatic) {
    // The protocol's name is longer than a hash, so it is hashed.
    this.chaining = hash(PROTOCOL);
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

  derive(secret) {
    const temporary = hmac(this.chaining, secret);
    const first = hmac(temporary, unhex('01'));
    return [first, hmac(temporary, first, unhex('02'))];
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

function prologue({ layout, audience, key_id }) {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(Buffer.byteLength(audience));
  return Buffer.concat([
    Buffer.from('meshgate-session\0'), Buffer.from([1, 2]),
    Buffer.from([Buffer.byteLength(layout)]), Buffer.from(layout),
    length, Buffer.from(audience),
    Buffer.from([Buffer.byteLength(key_id)]), Buffer.from(key_id),
  ]);
}

const vectors = JSON.parse(readFileSync(new URL('noise.json', import.meta.url)));
for (const vector of vectors) {
  assert.equal(vector.protocol, PROTOCOL.toString());
  assert.equal(hex(prologue(vector)), vector.prologue);
  const serverStatic = unhex(vector.server_static_public);
  assert.equal(hex(publicOf(unhex(vector.server_static_private))), hex(serverStatic));
  const keyId = Buffer.from(vector.key_id);

  // The client: -> e, es
  const client = new Handshake(unhex(vector.prologue), serverStatic);
  const ephemeral = unhex(vector.client_ephemeral_private);
  client.mixHash(publicOf(ephemeral));
  client.mixKey(dh(ephemeral, serverStatic));
  const loginMessage = Buffer.concat([
    Buffer.from([1, 1, keyId.length]), keyId,
    publicOf(ephemeral), client.encrypt(unhex(vector.login_request)),
  ]);
  assert.equal(hex(loginMessage), vector.login_message, `${vector.name}: login message`);

  // The companion: the same, then <- e, ee
  const server = new Handshake(unhex(vector.prologue), serverStatic);
  const theirs = loginMessage.subarray(3 + keyId.length, 3 + keyId.length + 32);
  server.mixHash(theirs);
  server.mixKey(dh(unhex(vector.server_static_private), theirs));
  const request = server.decrypt(loginMessage.subarray(3 + keyId.length + 32));
  assert.equal(hex(request), vector.login_request, `${vector.name}: login request`);
  const answering = unhex(vector.server_ephemeral_private);
  server.mixHash(publicOf(answering));
  server.mixKey(dh(answering, theirs));
  const reply = Buffer.concat([
    Buffer.from([1, 1]), publicOf(answering), server.encrypt(unhex(vector.login_reply)),
  ]);
  assert.equal(hex(reply), vector.reply_message, `${vector.name}: reply message`);

  // The client again.
  client.mixHash(reply.subarray(2, 34));
  client.mixKey(dh(ephemeral, reply.subarray(2, 34)));
  assert.equal(hex(client.decrypt(reply.subarray(34))), vector.login_reply, `${vector.name}: login reply`);
  for (const side of [client, server]) {
    const [clientToServer, serverToClient] = side.split();
    assert.equal(hex(clientToServer), vector.client_to_server_key, `${vector.name}: client's key`);
    assert.equal(hex(serverToClient), vector.server_to_client_key, `${vector.name}: server's key`);
  }
}
console.log(`${vectors.length} handshakes agree`);
