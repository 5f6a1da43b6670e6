// The simulated accounts when they fail: each outage is what its name says,
// whatever the prompts ask for, and the bill stays right.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { OUTAGES } from '../fake/outage.mjs';
import { makeAuthority, makeCertificate } from './certificates.mjs';
import { parseEvents } from './client.mjs';
import { API_KEY, Client, Provider, messageRequest, until } from './harness.mjs';

const SCRIPT = { label: 'outage', events: 8, delay_ms: 1, usage: { input_tokens: 1000, output_tokens: 400 } };
let dir, authority, plain, secure;

before(async () => {
	dir = mkdtempSync(path.join(os.tmpdir(), 'weir-outage-'));
	authority = makeAuthority(dir);
	plain = await Provider.start();
	secure = await Provider.start({ tls: { ...makeCertificate(dir, authority, 'server'), ca: authority.pem,
		stranger: makeCertificate(dir, authority, 'stranger', { names: 'DNS:elsewhere.example' }) } });
});
after(async () => {
	await plain.stop();
	await secure.stop();
	rmSync(dir, { recursive: true, force: true });
});

/** What a client sees: the answer, or the name of what went wrong. */
async function ask(provider, { script = SCRIPT, stream = true, deadlineMs } = {}) {
	let client;
	try {
		client = await Client.open({ port: provider.port, tls: provider.tls ? { ca: authority.pem } : null, deadlineMs });
		const answer = await client.exchange(messageRequest({ key: API_KEY, stream, script }), { mayBreak: true });
		return answer ? { ...answer, left: client.ended || client.error !== null } : 'no answer';
	} catch (error) {
		return error.code ?? error.message;
	} finally {
		client?.close();
	}
}

const status = (wanted, headers = {}) => (answer) => {
	assert.equal(answer.status, wanted);
	for (const [name, value] of Object.entries(headers))
		assert.equal(answer.headers.get(name), value);
};
const events = (names) => (answer) => {
	assert.equal(answer.status, 200);
	assert.deepEqual(parseEvents(answer.body).map((e) => e.event), names);
};
const cut = (left) => (answer) => {
	assert.deepEqual([answer.cut, answer.left], [true, left]);
	assert.equal(parseEvents(answer.body).filter((e) => e.event === 'content_block_delta').length, 2);
};

/* What each looks like from outside, and what is billed for it (input at 2,000, output at 10,000 nano-dollars). */
const SEEN = {
	refused: [(seen) => assert.equal(seen, 'ECONNREFUSED'), null],
	stranger: [(seen) => assert.equal(seen, 'ERR_TLS_CERT_ALTNAME_INVALID'), null],
	reset: [(seen) => assert.ok(['no answer', 'ECONNRESET'].includes(seen), JSON.stringify(seen)), 0],
	silent: [(seen) => assert.match(seen, /no head within/), 0],
	internal: [status(500), 0], overloaded: [status(529), 0], rate_limit: [status(429, { 'retry-after': '1' }), 0],
	tier_cap: [status(429, { 'retry-after': undefined }), 0], credential: [status(401), 0], billing: [status(402), 0], permission: [status(403), 0],
	overloaded_first: [events(['error']), 0],
	overloaded_started: [events(['message_start', 'error']), 1000 * 2000 + 10000],
	stalled: [cut(false), 1000 * 2000 + 100 * 10000],
	broken: [cut(true), 1000 * 2000 + 100 * 10000],
	slow: [(answer) => { assert.equal(parseEvents(answer.body).at(-1).event, 'message_stop'); assert.ok(answer.parts.length > 20); }, 1000 * 2000 + 400 * 10000],
};

test('every outage is looked at', () => assert.deepEqual(Object.keys(SEEN).sort(), Object.keys(OUTAGES).sort()));

for (const [mode, [look, cost]] of Object.entries(SEEN))
	test(`${mode}: it fails so, whatever the prompt says, and is well again afterwards`, async () => {
		const provider = mode === 'stranger' ? secure : plain;
		await provider.reset();
		await provider.outage(mode);
		assert.equal((await provider.stats()).outage, mode);
		look(await ask(provider, { deadlineMs: ['silent', 'stalled'].includes(mode) ? 500 : undefined }));
		await until(async () => (await provider.stats()).in_flight === 0, 'it is done with it');
		const { requests, total_nusd } = await provider.bill();
		assert.deepEqual(requests.map((r) => [r.label, r.cost_nusd]), cost === null ? [] : [['outage', String(cost)]]);
		assert.equal(total_nusd, String(cost ?? 0));
		if (!['overloaded_first', 'overloaded_started', 'slow'].includes(mode))	/* also where the prompt asks for another fault, and for plain answers */
			look(await ask(provider, { script: { ...SCRIPT, error: 'conflict', fault: undefined }, deadlineMs: ['silent', 'stalled'].includes(mode) ? 500 : undefined }));
		await provider.restore();
		assert.equal((await ask(provider)).status, 200);
	});

test('its script can be made another one, and an unknown outage is refused', async () => {
	await plain.outage('rate_limit', { headers: [['retry-after', '7']] });
	assert.equal((await ask(plain)).headers.get('retry-after'), '7');
	await assert.rejects(plain.outage('flood'), /there is no outage \\"flood\\"/);
	assert.equal((await plain.stats()).outage, 'rate_limit', 'what was set stays');
	await assert.rejects(plain.outage('stranger'), /stranger-cert/);
	await plain.restore();
});

test('a queue waits for the end of an outage', async () => {
	await plain.script({ error: 'conflict' });
	await plain.outage('internal');
	assert.equal((await ask(plain)).status, 500);
	await plain.restore();
	assert.equal((await ask(plain)).status, 409);
	assert.equal((await ask(plain)).status, 200);
});

test('an account that closes ends its idle connections, finishes what it serves, and opens at the same port', async () => {
	const idle = await Client.open({ port: plain.port }), busy = await Client.open({ port: plain.port });
	assert.equal((await idle.exchange(messageRequest({ key: API_KEY, script: {} }))).status, 200);
	await busy.send(messageRequest({ key: API_KEY, stream: true, script: { events: 4, hold: { after_events: 2, gate: 'closing' } } }));
	await plain.held(1);
	await plain.outage('refused');
	await until(() => idle.ended, 'the idle connection is ended');
	assert.equal(await ask(plain), 'ECONNREFUSED');
	await plain.release('closing');
	const answer = await busy.response();
	assert.equal(parseEvents(answer.body).at(-1).event, 'message_stop');
	await until(() => busy.ended, 'then the busy one too');
	const { port } = plain;
	await plain.restore();
	assert.equal((await ask(plain)).status, 200);
	assert.equal(plain.port, port);
	idle.close();
	busy.close();
});

test('a certificate of another host is shown at once: no session of before goes on', async () => {
	const client = await Client.open({ port: secure.port, tls: { ca: authority.pem } });
	assert.equal((await client.exchange(messageRequest({ key: API_KEY, script: {} }))).status, 200);
	await secure.outage('stranger');
	await until(() => client.ended, 'the connection is ended');
	assert.equal(await ask(secure), 'ERR_TLS_CERT_ALTNAME_INVALID');
	await secure.restore();
	assert.equal((await ask(secure)).status, 200);
	client.close();
});
