// Paths, probes and discovery: what clients ask before and besides a message.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { World, messageBody, messageRequest, refused, requestBytes, timely } from './harness.mjs';

const DISCOVERY_TOKENS = /claude|sonnet|opus|haiku|fable|mythos|anthropic/;
let world, key;

before(async () => {
	world = await World.open();
	key = await world.weir.key('probes');
});
after(() => world.close());

test('C1 every spelling of /v1/messages reaches the same handler, and the query goes upstream', async () => {
	const client = await world.open();
	for (const path of ['/v1/messages', '/v1/messages?beta=true', '/v1/v1/messages', '/v1/v1/messages?beta=true&x=%2F', '//v1/messages',
		'/v1/messages/', '/messages']) {
		const answer = await client.exchange(messageRequest({ key, path }));
		assert.equal(answer.status, 200, path);
		const query = path.includes('?') ? path.slice(path.indexOf('?')) : '';
		assert.equal((await world.provider.last()).target, '/v1/messages' + query, path);
	}
	client.close();
});

test('C1 a prefix chosen by the operator is taken off', async () => {
	const prefixed = await World.open({ settings: { path_prefix: '/ai/gateway' } });
	try {
		const k = await prefixed.weir.key('prefix');
		for (const path of ['/ai/gateway/v1/messages?beta=true', '/ai/gateway/v1/v1/messages']) {
			assert.equal((await prefixed.ask({ key: k, path })).status, 200, path);
			assert.match((await prefixed.provider.last()).target, /^\/v1\/messages/);
		}
		assert.equal((await prefixed.ask({ method: 'HEAD', path: '/ai/gateway/api/hello', body: '' })).status, 200);
	} finally {
		await prefixed.close();
	}
});

test('C2 probes answer 200 without a key, without a body to HEAD, and fast', async () => {
	const client = await world.open();
	for (const [method, path] of [['HEAD', '/api/hello'], ['HEAD', '/'], ['GET', '/'], ['GET', '/api/hello'], ['GET', '/healthz'],
		['GET', '/readyz'], ['HEAD', '/healthz']])
		await timely(async () => {
			const begin = performance.now();
			const answer = await client.exchange({ method, path });
			const took = performance.now() - begin;
			assert.equal(answer.status, 200, `${method} ${path}`);
			if (method === 'HEAD')
				assert.equal(answer.body.length, 0);
			return took < 50;
		}, `${method} ${path} within 50 ms`, 40);
	assert.equal(client.unread.length, 0, 'a HEAD was answered with a body');
	client.close();
});

test('C3 an unknown path is 404 in the envelope, whatever the method', async () => {
	for (const [method, path] of [['POST', '/v1/complete'], ['GET', '/v1/files'], ['POST', '/v1/messages/batches'], ['GET', '/api/oauth/usage'],
		['DELETE', '/v1/nothing'], ['GET', '/__bill'], ['GET', '/v1/messages/../models'], ['POST', '/v1/messagesx'], ['GET', '/.env']]) {
		const client = await world.open();
		const answer = await client.exchange({ method, path, body: method === 'GET' ? undefined : '{}',
			headers: [['x-api-key', key.secret], ['content-type', 'application/json']] });
		refused(answer, 404, 'not_found_error');
		assert.doesNotMatch(answer.body.toString(), /<html|<!doctype/i);
		client.close();
	}
	assert.equal((await world.ask({ key, method: 'GET', path: '/v1/messages', body: '' })).status, 405);
});

test('C4 no endpoint redirects', async () => {
	for (const path of ['/', '/v1', '/v1/', '/v1/models/', '/v1/messages/', '//v1//models', '/api/hello/', '/healthz/', '/v1/models?limit=1000'])
		for (const method of ['GET', 'HEAD', 'POST']) {
			const answer = await world.ask({ key, method, path, body: method === 'POST' ? '{}' : '' });
			assert.ok(answer.status < 300 || answer.status >= 400, `${method} ${path} -> ${answer.status}`);
			assert.ok(!answer.headers.has('location'));
		}
});

test('C5 count_tokens answers, in a burst of 15, costs nothing, and works when the budget is gone', async () => {
	const spent = await world.weir.key('spent', '--budget', '0.05', '--budget-period', 'total');
	/* A provider that reports more than was possible: the money is gone, so it is booked. */
	assert.equal((await world.ask({ key: spent, script: { usage: { input_tokens: 1000000000 } } })).status, 200);
	assert.match(refused(await world.ask({ key: spent }), 429, 'billing_error'), /^spend limit reached/);
	const body = JSON.stringify({ model: 'claude-sonnet-5-5', messages: [{ role: 'user', content: 'how long am I?' }] });
	const before = (await world.provider.bill()).total_nusd;
	const answers = await Promise.all(Array.from({ length: 15 }, () => world.ask({ key: spent, path: '/v1/messages/count_tokens?beta=true', body })));
	for (const answer of answers) {
		assert.equal(answer.status, 200, answer.body.toString());
		assert.equal(JSON.parse(answer.body).input_tokens, Math.ceil(Buffer.byteLength(body) / 4) + 3);
		assert.ok(Number.isInteger(JSON.parse(answer.body).input_tokens));
	}
	assert.equal((await world.provider.bill()).total_nusd, before);
	for (const record of await world.weir.records(15, `key_id=${spent.id}`, 'route=count_tokens')) {
		assert.equal(record.cost_nusd, 0);
		assert.equal(record.outcome, 'ok');
	}
});

test('C44 the list of models: with either header, with both, and not without one', async () => {
	const ways = [[['authorization', `Bearer ${key.secret}`]], [['x-api-key', key.secret]],
		[['authorization', `Bearer ${key.secret}`], ['x-api-key', key.secret]], [['x-portkey-api-key', key.secret]]];
	for (const headers of ways)
		await timely(async () => {
			const begin = performance.now();
			const answer = await world.ask({ method: 'GET', path: '/v1/models?limit=1000', headers, body: '' });
			const took = performance.now() - begin;
			assert.equal(answer.status, 200);
			assert.ok(JSON.parse(answer.body).data.length > 5);
			return took < 1000;
		}, 'the list within a second');
	refused(await world.ask({ method: 'GET', path: '/v1/models?limit=1000', body: '' }), 401, 'authentication_error');
});

test('C44 a key sees the models that it may use', async () => {
	const narrow = await world.weir.key('narrow', '--model', 'claude-haiku-*', '--model', 'claude-opus-5-5');
	const list = JSON.parse((await world.ask({ key: narrow, method: 'GET', path: '/v1/models?limit=1000', body: '' })).body).data.map((m) => m.id);
	assert.ok(list.includes('claude-opus-5-5') && list.includes('claude-haiku-5-5'), list.join());
	assert.ok(list.every((id) => id === 'claude-opus-5-5' || id.startsWith('claude-haiku-')), list.join());
	refused(await world.ask({ key: narrow, method: 'GET', path: '/v1/models/claude-sonnet-5-5', body: '' }), 404, 'not_found_error');
	refused(await world.ask({ key: narrow }), 403, 'permission_error');
});

test('C45 the entries satisfy the filters of Claude Code and of Claude Desktop', async () => {
	const { data } = JSON.parse((await world.ask({ key, method: 'GET', path: '/v1/models?limit=1000', body: '' })).body);
	for (const model of data) {
		assert.equal(model.type, 'model');
		assert.equal(model.object, 'model');
		assert.equal(typeof model.display_name, 'string');
		assert.match(model.created_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
		assert.ok(Number.isInteger(model.created));
		assert.ok(Number.isInteger(model.max_tokens) && model.max_tokens > 0, model.id);
		assert.match(model.id.toLowerCase(), DISCOVERY_TOKENS);
		assert.match(model.anthropic_family_tier, /^(sonnet|opus|haiku|fable|mythos)$/);
		assert.equal(model.supports_1m, model.max_input_tokens >= 1000000);
	}
	for (const family of new Set(data.map((m) => m.anthropic_family_tier)))
		assert.ok(data.some((m) => m.anthropic_family_tier === family && m.is_family_default), family);
});

test('C46 one model, and pages of the list', async () => {
	const get = async (path) => world.ask({ key, method: 'GET', path, body: '' });
	const page = async (query) => JSON.parse((await get(`/v1/models${query}`)).body);
	const all = await page('?limit=1000');
	const ids = all.data.map((m) => m.id);
	assert.equal(all.has_more, false);
	assert.equal(all.first_id, ids[0]);
	assert.equal(all.last_id, ids.at(-1));
	const one = JSON.parse((await get(`/v1/models/${ids[2]}`)).body);
	assert.deepEqual(one, all.data[2]);
	refused(await get('/v1/models/claude-nonesuch-1'), 404, 'not_found_error');

	const walked = [];
	for (let after = ''; ;) {
		const part = await page(`?limit=3${after}`);
		walked.push(...part.data.map((m) => m.id));
		if (!part.has_more)
			break;
		assert.equal(part.data.length, 3);
		after = `&after_id=${part.last_id}`;
	}
	assert.deepEqual(walked, ids);
	const back = await page(`?limit=2&before_id=${ids[3]}`);
	assert.deepEqual(back.data.map((m) => m.id), ids.slice(1, 3));
	assert.equal(back.has_more, true);
	for (const limit of ['0', '1001', 'x', '-1'])
		refused(await get(`/v1/models?limit=${limit}`), 400, 'invalid_request_error');
});

test('C53 the connection test of Claude Desktop succeeds and is recorded', async () => {
	const fresh = await world.weir.key('fresh');
	const answer = await world.ask({ headers: [['authorization', `Bearer ${fresh.secret}`],
		['user-agent', 'claude-cli/2.1.260 (external, claude-desktop-3p)']],
	body: messageBody({ max_tokens: 1, messages: [{ role: 'user', content: '.' }] }) });
	assert.equal(answer.status, 200);
	assert.equal(JSON.parse(answer.body).usage.output_tokens, 1);
	const [record] = await world.weir.records(1, `key_id=${fresh.id}`);
	assert.equal(record.client, 'claude-desktop');
	assert.equal(record.tokens.output, 1);
});

test('an unknown path with a body does not disturb the next request of the connection', async () => {
	const client = await world.open();
	await client.write(Buffer.concat([requestBytes({ path: '/v1/nope', body: 'x'.repeat(1000) }), requestBytes({ method: 'GET', path: '/healthz' })]));
	assert.equal((await client.response()).status, 404);
	assert.equal((await client.response({ method: 'GET' })).status, 200);
	client.close();
});
