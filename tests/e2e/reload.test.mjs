// SIGHUP: new settings and certificates, no connection dropped; a bad file
// changes nothing.

import assert from 'node:assert/strict';
import { copyFileSync, writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import tls from 'node:tls';

import { sha256 } from '../fake/memory.mjs';
import { makeAuthority, makeCertificate } from './certificates.mjs';
import { withoutPings } from './client.mjs';
import { World, messageBody, messageRequest, refused, until } from './harness.mjs';

const STREAMS = 500;
let world, key;

before(async () => {
	world = await World.open({ tls: true, workers: 2 });
	key = await world.weir.key('reload');
});
after(() => world.close());

/** Waits until `probe` is true that often in a row: of every worker, then. */
async function everywhere(probe, what, times = 20) {
	let row = 0;
	await until(async () => {
		row = await probe() ? row + 1 : 0;
		return row === times;
	}, what, undefined, 0);
}

/** Writes the settings, sends SIGHUP, waits until they are in force. */
async function reload(change) {
	const before = (await world.weir.metrics()).sum('weir_settings_version');
	world.weir.write({ ...world.weir.settings, ...change });
	world.weir.signal('SIGHUP');
	await until(async () => (await world.weir.metrics()).sum('weir_settings_version') === before + 1, 'the new settings are in force');
}

test('500 open streams live through a reload, and new requests see the new settings', async () => {
	const script = { events: 10, hold: { after_events: 5, gate: 'reload' } };
	const clients = await Promise.all(Array.from({ length: STREAMS }, (_, i) => world.open({ tls: i % 10 === 0 })));
	const streams = clients.map((c) => c.exchange(messageRequest({ key, stream: true, script })));
	await world.provider.held(STREAMS);
	const workers = world.weir.children();

	await reload({ metadata: { required: ['team'] } });
	await everywhere(async () => (await world.ask({ key })).status === 400, 'every worker asks for a team');
	assert.match(refused(await world.ask({ key }), 400, 'invalid_request_error'), /"team"/);
	assert.equal((await world.ask({ key, headers: [['x-portkey-metadata', '{"team":"t"}']] })).status, 200);
	await reload({ metadata: {} });
	await everywhere(async () => (await world.ask({ key })).status === 200, 'no worker asks any more');
	assert.equal((await world.provider.stats()).held, STREAMS, 'all streams are still open');
	await world.provider.release('reload');

	const sent = new Map();
	const answers = await Promise.all(streams);
	for (const request of await world.provider.requests(2000))
		sent.set(request.id, request.sent_sha256);
	for (const answer of answers) {
		assert.equal(answer.status, 200);
		assert.equal(sha256(withoutPings(answer.body)), sent.get(answer.headers.get('request-id')));
		assert.ok(answer.body.toString().endsWith('data: {"type":"message_stop"}\n\n'));
	}
	for (const client of clients)	/* and the connections are still good */
		assert.equal(client.ended, false);
	assert.equal((await clients[0].exchange(messageRequest({ key }))).status, 200);
	clients.forEach((c) => c.close());
	assert.deepEqual(world.weir.children(), workers, 'no process was replaced');
});

test('reloads in quick succession, under load, disturb nobody', async () => {
	const before = (await world.weir.metrics()).sum('weir_settings_version');
	let going = true;
	const signals = (async () => {
		for (let i = 0; i < 15; i++) {
			world.weir.write({ ...world.weir.settings, configs: [{ slug: `pc-${i}`, config: { override_params: { max_tokens: 100 + i } } }] });
			world.weir.signal('SIGHUP');
			await until(async () => (await world.weir.metrics()).sum('weir_settings_version') >= before + 1 + i, 'this reload is in force');
		}
		going = false;
	})();
	await Promise.all(Array.from({ length: 16 }, async (_, n) => {
		const client = await world.open({ tls: n % 4 === 0 });
		while (going) {
			const answer = await client.exchange(messageRequest({ key, stream: n % 2 === 0 }));
			assert.equal(answer.status, 200, answer.body.toString());
		}
		client.close();
	}));
	await signals;
	await everywhere(async () => (await world.ask({ key, headers: [['x-portkey-config', 'pc-14']] })).status === 200, 'every worker knows the newest');
	assert.equal(JSON.parse((await world.provider.last()).body).max_tokens, 114);
	refused(await world.ask({ key, headers: [['x-portkey-config', 'pc-0']] }), 400, 'invalid_request_error');
});

test('a bad file is refused in the log, by its place, and the old settings stay', async () => {
	const good = world.weir.settings;
	const before = (await world.weir.metrics()).sum('weir_settings_version');
	for (const [bad, place] of [['{', /config|JSON|byte|line/i], [JSON.stringify({ ...good, limits: { ping_millis: 1 } }), /limits\.ping_millis/],
		[JSON.stringify({ ...good, providers: [...good.providers, good.providers[0]] }), /providers/],
		[JSON.stringify({ ...good, tls: { certificate: '/nonexistent.pem', key: good.tls.key } }), /tls\.certificate/]]) {
		const said = world.weir.stderr.length;
		writeFileSync(world.weir.configPath, bad);
		world.weir.signal('SIGHUP');
		const text = await until(() => /stay in force/.test(world.weir.stderr.slice(said)) && world.weir.stderr.slice(said), 'weir says that it refuses');
		assert.match(text, place);
		assert.equal((await world.ask({ key })).status, 200);
	}
	assert.equal((await world.weir.metrics()).sum('weir_settings_version'), before);
	world.weir.write(good);
});

test('C56 a changed certificate is served to new connections, old ones go on', async () => {
	const subject = () => new Promise((resolve, reject) => {
		const socket = tls.connect({ port: world.weir.tlsPort, host: '127.0.0.1', servername: 'localhost', ca: [world.authority.pem, other.pem] }, () => {
			resolve(socket.getPeerCertificate().subject.CN);
			socket.destroy();
		});
		socket.on('error', reject);
	});
	const other = makeAuthority(world.dir, 'other-ca');
	assert.equal(await subject(), 'server');
	const old = await world.open({ tls: true });
	const running = old.exchange(messageRequest({ key, stream: true, script: { events: 8, hold: { after_events: 4, gate: 'certificate' } } }));
	await world.provider.held(1);

	const fresh = makeCertificate(world.dir, other, 'renewed', { rsa: true });
	copyFileSync(fresh.cert, world.certificate.cert);
	copyFileSync(fresh.key, world.certificate.key);
	await reload({});
	await everywhere(async () => (await subject()) === 'renewed', 'every worker serves the new certificate');
	await world.provider.release('certificate');
	const answer = await running;
	assert.ok(answer.body.toString().endsWith('data: {"type":"message_stop"}\n\n'));
	assert.equal((await old.exchange(messageRequest({ key }))).status, 200);
	old.close();
});

test('a provider, a config and a key of the provider can change under way', async () => {
	const provider = { ...world.weir.settings.providers[0], api_key: 'sk-ant-another' };
	await reload({ providers: [provider, { ...provider, slug: 'second', api_key: world.weir.settings.providers[0].api_key }], default_provider: 'anthropic',
		configs: [{ slug: 'pc-second', config: { override_params: { model: '@second/claude-opus-5-5' } } }] });
	await everywhere(async () => (await world.ask({ key })).status === 401, 'the first provider refuses the new account');
	const answer = await world.ask({ key, headers: [['x-portkey-config', 'pc-second']], body: messageBody() });
	assert.equal(answer.status, 200, answer.body.toString());
	assert.equal(JSON.parse((await world.provider.last()).body).model, 'claude-opus-5-5');
	const violations = await world.provider.violations();
	assert.ok(violations.length > 0 && violations.every((v) => v.text === 'x-api-key is not the account\'s'));
	await world.provider.reset();
});
