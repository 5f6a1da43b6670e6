// Errors of weir's own: the words, the headers and the statuses clients act on.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { chunked } from './client.mjs';
import { World, messageBody, messageRequest, refused, requestBytes, until } from './harness.mjs';

const BODY_MAX = 200000;
let world, key;

before(async () => {
	world = await World.open({ settings: { limits: { body_bytes: BODY_MAX, connect_ms: 1000 },
		budgets: { message: 'Ask platform@example.com.' } } });
	key = await world.weir.key('errors');
});
after(() => world.close());

test('C37 C39 a rate limit: 429, whole seconds to wait, and after them there is room', async () => {
	const limited = await world.weir.key('limited', '--rpm', '30');
	let answer;
	for (let i = 0; i < 400 && answer?.status !== 429; i++)
		answer = await world.ask({ key: limited, script: { events: 0 } });
	const message = refused(answer, 429, 'rate_limit_error');
	const wait = answer.headers.get('retry-after');
	assert.match(wait, /^[1-9]\d*$/);
	assert.ok(Number(wait) <= 60);
	assert.match(message, /30/);
	const said = Date.now();
	await until(() => Date.now() - said >= Number(wait) * 1000, 'as long as it said', 61000);
	assert.equal((await world.ask({ key: limited, script: { events: 0 } })).status, 200, 'exactly that long was enough');
	const [record] = await world.weir.records(1, `key_id=${limited.id}`, 'outcome=refused');
	assert.equal(record.limit, 'key rpm');
	assert.equal(record.status, 429);
});

test('C38 C39 a spent budget: 429 billing_error, not to be retried, with the time of its reset', async () => {
	for (const [period, reset] of [['daily', /daily; resets \d{4}-\d\d-\d\d 00:00 UTC/], ['weekly', /weekly; resets .* 00:00 UTC/],
		['monthly', /monthly; resets \d{4}-\d\d-01 00:00 UTC/], ['total', /total; never resets/]]) {
		const poor = await world.weir.key(`poor-${period}`, '--budget', '0.000001', '--budget-period', period);
		const answer = await world.ask({ key: poor });
		const message = refused(answer, 429, 'billing_error');
		assert.match(message, reset);
		assert.match(message, /Ask platform@example\.com\./);
		assert.equal(answer.headers.get('x-should-retry'), 'false');
		if (period === 'total')
			assert.ok(!answer.headers.has('retry-after'), 'there is nothing to wait for');
		else
			assert.match(answer.headers.get('retry-after'), /^[1-9]\d*$/);
		const [record] = await world.weir.records(1, `key_id=${poor.id}`);
		assert.equal(record.status, 429);
		assert.match(record.limit, new RegExp(period));
	}
});

test('C42 Portkey\'s 412 only where the key came in its header', async () => {
	const poor = await world.weir.key('poor-portkey', '--budget', '0.000001');
	const answer = await world.ask({ headers: [['x-portkey-api-key', poor.secret]] });
	assert.equal(answer.status, 412);
	const body = JSON.parse(answer.body);
	assert.equal(body.status, 'failure');
	assert.equal(body.error.code, '04');
	assert.equal(body.type, 'error');
	assert.equal((await world.ask({ key: poor })).status, 429);
});

test('C42 or where the operator chose it', async () => {
	const other = await World.open({ settings: { budgets: { style: 'portkey' } } });
	try {
		const poor = await other.weir.key('poor', '--budget', '0.000001');
		assert.equal((await other.ask({ key: poor })).status, 412);
	} finally {
		await other.close();
	}
});

test('C40 a body over the limit: 413 that can be read, announced or in chunks', async () => {
	const body = Buffer.from(messageBody({ messages: [{ role: 'user', content: 'x'.repeat(BODY_MAX) }] }));
	const request = messageRequest({ key, body });
	for (const bytes of [requestBytes(request),
		requestBytes({ ...request, headers: [...request.headers, ['transfer-encoding', 'chunked']], body: chunked(body, [70000, 140000]) }),
		requestBytes({ ...request, headers: [...request.headers, ['content-length', '99999999999']], body: Buffer.from('x'.repeat(100000)) })]) {
		const client = await world.open();
		client.write(bytes);
		refused(await client.response(), 413, 'request_too_large');
		client.close();
	}
	const fitting = messageBody({ messages: [{ role: 'user', content: 'x'.repeat(BODY_MAX - 200) }] });
	assert.ok(fitting.length <= BODY_MAX);
	assert.equal((await world.ask({ key, body: fitting })).status, 200);
});

test('C40 32 MB are accepted by default', async () => {
	const wide = await World.open();
	try {
		const k = await wide.weir.key('wide');
		const frame = messageBody({ messages: [{ role: 'user', content: '' }] }).length;
		const body = messageBody({ messages: [{ role: 'user', content: 'x'.repeat(33554432 - frame) }] });
		assert.equal(body.length, 33554432);
		assert.equal((await wide.ask({ key: k, body })).status, 200);
		const client = await wide.open();
		client.write(requestBytes(messageRequest({ key: k, body: body + ' ' })));
		refused(await client.response(), 413, 'request_too_large');
		client.close();
	} finally {
		await wide.close();
	}
});

test('C41 every error of weir has the envelope, its id in the header, and nothing of the inside', async () => {
	const cases = [
		[{ key, body: '{' }, 400], [{ key, body: '{}' }, 400], [{ key: 'x' }, 401], [{ key, path: '/v1/x' }, 404],
		[{ key, headers: [['x-portkey-metadata', '{']] }, 400], [{ key, headers: [['x-portkey-config', 'pc-none']] }, 400],
		[{ key, headers: [['x-portkey-config', '{"strategy":{"mode":"fallback"},"targets":[]}']] }, 400],
		[{ key, headers: [['x-portkey-provider', '@nobody']] }, 400], [{ key, headers: [['content-type', 'text/plain']] }, 400],
		[{ key, headers: [['content-encoding', 'gzip']] }, 400], [{ key, body: messageBody({ model: '@nobody/claude-x' }) }, 400],
	];
	const ids = new Set();
	for (const [request, status] of cases) {
		const answer = await world.ask(request);
		refused(answer, status, { 400: 'invalid_request_error', 401: 'authentication_error', 404: 'not_found_error' }[status]);
		ids.add(answer.headers.get('request-id'));
		assert.doesNotMatch(answer.body.toString(), /\.c:\d+|0x[0-9a-f]{6}|\/tmp\/|sk-ant/);
	}
	assert.equal(ids.size, cases.length, 'ids are unique');
	const metadata = JSON.parse((await world.ask(cases[4][0])).body).error.message;
	assert.match(metadata, /x-portkey-metadata/);
	assert.match(JSON.parse((await world.ask(cases[6][0])).body).error.message, /targets: must have a target/);
});

test('C43 a provider that is down, or away: a JSON error in time, nothing billed', async () => {
	for (const kind of ['reset_before_head', 'close_before_head', 'reset_in_head', 'garbage']) {
		const answer = await world.ask({ key, script: { fault: { kind } } });
		refused(answer, 502, 'api_error');
	}
	const down = await World.open();
	try {
		const k = await down.weir.key('down');
		await down.provider.stop();
		for (const stream of [false, true]) {
			const answer = await down.ask({ key: k, stream });
			assert.ok([502, 503, 529].includes(answer.status), `${answer.status}`);
			refused(answer, answer.status, answer.status === 529 ? 'overloaded_error' : 'api_error');
		}
		for (const record of await down.weir.records(2)) {
			assert.equal(record.cost_nusd, 0);
			assert.equal(record.outcome, 'upstream_failed');
		}
		down.provider = null;
	} finally {
		await down.close();
	}
});

test('C43 a provider whose name has no address', async () => {
	const nowhere = await World.open({ providerSettings: { base_url: 'https://provider.invalid' } });
	try {
		refused(await nowhere.ask({ key: await nowhere.weir.key('k') }), 502, 'api_error');
	} finally {
		await nowhere.close();
	}
});

test('the provider refuses weir\'s account: the client sees the provider\'s own words', async () => {
	const wrong = await World.open({ providerSettings: { api_key: 'sk-ant-wrong' } });
	try {
		const answer = await wrong.ask({ key: await wrong.weir.key('k') });
		assert.equal(answer.status, 401);
		assert.equal(JSON.parse(answer.body).error.message, 'invalid x-api-key');
	} finally {
		await wrong.close({ violations: ['x-api-key is not the account\'s'] });
	}
});
