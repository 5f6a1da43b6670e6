// TLS on both sides: versions, resumption across workers, certificates that
// must not be believed.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import tls from 'node:tls';

import { sha256 } from '../fake/memory.mjs';
import { makeAuthority, makeCertificate } from './certificates.mjs';
import { parseEvents } from './client.mjs';
import { Client, Provider, World, messageRequest, refused, requestBytes, run, until } from './harness.mjs';

const WORKERS = 4;
let world, key, tls13;

before(async () => {
	world = await World.open({ tls: true, upstreamTls: true, workers: WORKERS });
	key = await world.weir.key('tls');
	/* mbedTLS 2.28 (Debian 12) ends at TLS 1.2; 3.6 (Debian 13) has 1.3. */
	const linked = await run('ldd', [process.env.WEIR_BIN ?? '../build/gateway/weir']);
	tls13 = !/libmbedtls\.so\.14/.test(linked.stdout);
});
after(() => world.close());

function connect(options = {}) {
	return new Promise((resolve, reject) => {
		const socket = tls.connect({ port: world.weir.tlsPort, host: '127.0.0.1', servername: 'localhost', ca: world.authority.pem, ...options }, () => resolve(socket));
		socket.once('error', reject);
	});
}

test('C56 the highest version that both know, with ALPN http/1.1', async () => {
	const socket = await connect({ ALPNProtocols: ['h2', 'http/1.1'] });
	assert.equal(socket.getProtocol(), tls13 ? 'TLSv1.3' : 'TLSv1.2');
	assert.equal(socket.alpnProtocol, 'http/1.1');
	assert.ok(socket.authorized);
	socket.destroy();
	const older = await connect({ maxVersion: 'TLSv1.2' });
	assert.equal(older.getProtocol(), 'TLSv1.2');
	assert.match(older.getCipher().name, /^ECDHE-.*(GCM|CHACHA20|CCM)/);
	older.destroy();
	const none = await connect({ ALPNProtocols: undefined });
	none.destroy();
});

test('C56 TLS 1.1 and older, and a certificate of a CA that the client does not know, fail', async () => {
	const options = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT:@SECLEVEL=0' };
	await assert.rejects(connect(options));
	await assert.rejects(connect({ ca: makeAuthority(world.dir, 'stranger').pem }), /self.signed|issuer|verify/i);
	assert.equal((await world.ask({ key, tls: true })).status, 200);
});

test('a client resumes its session at whatever worker answers', async () => {
	/* TLS 1.2 has its ticket at the end of the handshake, 1.3 sends it after. */
	const first = tls.connect({ port: world.weir.tlsPort, host: '127.0.0.1', servername: 'localhost', ca: world.authority.pem });
	const session = await new Promise((resolve, reject) => first.once('session', resolve).once('error', reject));
	first.destroy();
	let reused = 0;
	const rounds = 24;
	for (let i = 0; i < rounds; i++) {
		const socket = await connect({ session });
		reused += socket.isSessionReused() ? 1 : 0;
		socket.destroy();
	}
	assert.equal(reused, rounds, 'every worker takes the ticket of any other');
});

test('the provider\'s sessions are pooled and resumed', async () => {
	const before = await world.provider.stats();
	for (let i = 0; i < 40; i++)
		assert.equal((await world.ask({ key, tls: i % 2 === 0 })).status, 200);
	const now = await world.provider.stats();
	assert.ok(now.opened - before.opened <= WORKERS, 'connections are kept');
	await Promise.all(Array.from({ length: 40 }, () => world.ask({ key, stream: true, script: { events: 5, delay_ms: 20 } })));
	const later = await world.provider.stats();
	assert.ok(later.resumed > before.resumed, 'new ones resume');
});

test('a request and an answer of megabytes pass over TLS on both sides', async () => {
	const client = await world.open({ tls: true });
	const body = JSON.stringify({ model: 'claude-sonnet-5-5', max_tokens: 100000, stream: true,
		messages: [{ role: 'user', content: JSON.stringify({ fake: { events: 500, text_bytes: 8000 } }) }, { role: 'user', content: 'x'.repeat(6 << 20) }] });
	const answer = await client.exchange(messageRequest({ key, body }));
	assert.equal(answer.status, 200);
	const [last] = await world.provider.requests(1);
	assert.equal(last.body_sha256, sha256(Buffer.from(body)));
	assert.equal(last.sent_sha256, sha256(answer.body));
	client.close();
});

test('garbage, plain HTTP and half a handshake at the TLS port disturb nobody', async () => {
	for (const bytes of [requestBytes({ method: 'GET', path: '/healthz' }), Buffer.from([0x16, 3, 1, 0xff, 0xff]), Buffer.alloc(5000, 0x80)]) {
		const client = await Client.open({ port: world.weir.tlsPort });
		await client.write(bytes);
		client.end();
		await client.drain();
		client.close();
	}
	assert.equal((await world.ask({ key, tls: true })).status, 200);
});

test('an answer that ends with the connection, but not with the word of TLS, does not look whole', async () => {
	for (const stream of [false, true]) {
		const answer = await world.ask({ key, stream, mayBreak: true, script: { events: 50, framing: 'close', fault: { kind: 'truncate' } } });
		assert.ok(answer === null || answer.cut || answer.status >= 500 || parseEvents(answer.body).at(-1).event === 'error', `stream: ${stream}`);
	}
});

test('a provider whose certificate is not to be believed gets no request', async () => {
	const stranger = makeAuthority(world.dir, 'other');
	const wrong = [['another CA', makeCertificate(world.dir, stranger, 'strange')],
		['another name', makeCertificate(world.dir, world.authority, 'misnamed', { names: 'DNS:elsewhere.example' })],
		['an expired one', makeCertificate(world.dir, world.authority, 'expired', { days: -1 })]];
	for (const [name, certificate] of wrong) {
		const provider = await Provider.start({ tls: { ...certificate, ca: [stranger.pem, world.authority.pem] } });
		const doubtful = await World.open({ upstreamTls: true, start: false });
		try {
			const settings = doubtful.weir.settings;
			doubtful.weir.write({ ...settings, providers: [{ ...settings.providers[0], base_url: `https://127.0.0.1:${provider.port}`, ca_file: world.authority.cert }] });
			await doubtful.weir.start();
			const k = await doubtful.weir.key('k');
			const message = refused(await doubtful.ask({ key: k }), 502, 'api_error');
			assert.match(message, /TLS/, name);
			await until(() => /certificate|verif/i.test(doubtful.weir.stderr), `${name}: weir's log says why`);
			const [record] = await doubtful.weir.records(1);
			assert.equal(record.cost_nusd, 0);
		} finally {
			await doubtful.close();
			await provider.stop();
		}
	}
});

test('without ca_file the system\'s authorities are asked, and a private one is refused', async () => {
	const strict = await World.open({ upstreamTls: true, providerSettings: { ca_file: undefined } });
	try {
		refused(await strict.ask({ key: await strict.weir.key('k') }), 502, 'api_error');
		assert.equal((await strict.provider.stats()).requests, 0);
	} finally {
		await strict.close();
	}
});
