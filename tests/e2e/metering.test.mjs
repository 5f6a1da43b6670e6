// Every class of tokens, on streams and plain answers: the record's tokens and
// cost against the provider's own bill, to the nano-dollar.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { World, messageBody, refused, until } from './harness.mjs';

let world, key;

before(async () => {
	world = await World.open();
	key = await world.weir.key('meter');
});
after(() => world.close());

const NONE = { input_tokens: 0, output_tokens: 0 };

/** name, model, usage that the provider reports, tokens that weir must record */
const CASES = [
	['input and output', 'claude-sonnet-5-5', { input_tokens: 1000, output_tokens: 800 }, { input: 1000, output: 800 }],
	['one token each', 'claude-opus-5-5', { input_tokens: 1, output_tokens: 1 }, { input: 1, output: 1 }],
	['nothing at all', 'claude-opus-5-5', NONE, {}],
	['both kinds of cache writes, and reads', 'claude-sonnet-5-5', { input_tokens: 1000, output_tokens: 800, cache_read_input_tokens: 10000,
		cache_creation: { ephemeral_5m_input_tokens: 2000, ephemeral_1h_input_tokens: 500 } },
	{ input: 1000, output: 800, cache_write_5m: 2000, cache_write_1h: 500, cache_read: 10000 }],
	['cache writes without their split count as 5 minutes', 'claude-opus-5', { input_tokens: 10, output_tokens: 5, cache_creation_input_tokens: 4000, cache_creation: null },
		{ input: 10, output: 5, cache_write_5m: 4000 }],
	['web searches', 'claude-sonnet-5-5', { input_tokens: 1000, output_tokens: 800, server_tool_use: { web_search_requests: 2, web_fetch_requests: 3 } },
		{ input: 1000, output: 800, web_searches: 2 }],
	['the United States', 'claude-sonnet-5-5', { input_tokens: 1001, output_tokens: 801, inference_geo: 'us', server_tool_use: { web_search_requests: 1 } },
		{ input: 1001, output: 801, web_searches: 1 }],
	['the batch tier', 'claude-opus-5-5', { input_tokens: 1001, output_tokens: 333, service_tier: 'batch' }, { input: 1001, output: 333 }],
	['fast', 'claude-opus-5-5', { input_tokens: 1000, output_tokens: 100, cache_read_input_tokens: 777, speed: 'fast' }, { input: 1000, output: 100, cache_read: 777 }],
	['fast in the United States', 'claude-opus-4-8', { input_tokens: 999, output_tokens: 99, speed: 'fast', inference_geo: 'us' }, { input: 999, output: 99 }],
	['a prompt at the step', 'claude-haiku-5-5', { input_tokens: 20000, cache_read_input_tokens: 80000, output_tokens: 1000 },
		{ input: 20000, cache_read: 80000, output: 1000 }],
	['a prompt over the step', 'claude-haiku-5-5', { input_tokens: 20000, cache_read_input_tokens: 80001, output_tokens: 1000 },
		{ input: 20000, cache_read: 80001, output: 1000 }],
	['the long context of an older model', 'claude-sonnet-4-5', { input_tokens: 200001, output_tokens: 10 }, { input: 200001, output: 10 }],
	['a dated model', 'claude-haiku-4-5-20251001', { input_tokens: 12345, output_tokens: 678 }, { input: 12345, output: 678 }],
	['numbers beyond 32 bits', 'claude-haiku-5-5', { input_tokens: 5000000000, output_tokens: 3 }, { input: 5000000000, output: 3 }],
	['iterations are priced each at its model, and the top is not', 'claude-opus-5-5', { input_tokens: 100, output_tokens: 50, iterations: [
		{ type: 'message', input_tokens: 100, output_tokens: 50, cache_creation_input_tokens: 0, cache_read_input_tokens: 0 },
		{ type: 'advisor_message', model: 'claude-haiku-5-5', input_tokens: 4000, output_tokens: 70, cache_read_input_tokens: 10 },
		{ type: 'compaction', input_tokens: 9000, output_tokens: 900, cache_creation_input_tokens: 100 }] }, null],
	['empty iterations are none', 'claude-opus-5-5', { input_tokens: 100, output_tokens: 50, iterations: [] }, { input: 100, output: 50 }],
];

const CLASSES = ['input', 'output', 'cache_write_5m', 'cache_write_1h', 'cache_read', 'web_searches'];

for (const [name, model, usage, tokens] of CASES)
	test(`${name}: record = bill, plain and streamed`, async () => {
		const costs = [];
		for (const stream of [false, true]) {
			const answer = await world.ask({ key, body: messageBody({ model, stream, max_tokens: 100000, script: { usage, text_bytes: 3 } }) });
			assert.equal(answer.status, 200, answer.body.toString());
			const last = await world.provider.last();
			const record = await world.weir.record(answer.headers.get('x-weir-request-id'));
			assert.equal(record.provider_request_id, last.id);
			assert.equal(String(record.cost_nusd), last.cost_nusd, `${stream ? 'stream' : 'plain'}: ${JSON.stringify(record.tokens)}`);
			assert.equal(Number(record.cost_usd).toFixed(9), (record.cost_nusd / 1e9).toFixed(9));
			if (tokens)
				for (const name of CLASSES)
					assert.equal(record.tokens[name], tokens[name] ?? 0, name);
			assert.ok(record.flags.includes('stream') === stream);
			assert.ok(!record.flags.includes('partial') && !record.flags.includes('estimated'), record.flags.join());
			assert.ok(record.price.startsWith('claude-'), record.price);
			costs.push(record.cost_nusd);
		}
		assert.equal(costs[0], costs[1]);
	});

test('the worked examples, in dollars', async () => {
	const dollars = async (model, usage) => {
		const answer = await world.ask({ key, body: messageBody({ model, max_tokens: 100000, script: { usage } }) });
		return (await world.weir.record(answer.headers.get('x-weir-request-id'))).cost_nusd / 1e9;
	};
	const first = { input_tokens: 1000, output_tokens: 800, cache_read_input_tokens: 10000, server_tool_use: { web_search_requests: 2 },
		cache_creation: { ephemeral_5m_input_tokens: 2000, ephemeral_1h_input_tokens: 500 } };
	assert.equal(await dollars('claude-sonnet-5-5', first), 0.038);
	assert.equal(await dollars('claude-sonnet-5-5', { ...first, inference_geo: 'us' }), 0.0398);
	assert.equal(await dollars('claude-haiku-5-5', { input_tokens: 20000, cache_read_input_tokens: 90000, output_tokens: 1000 }), 0.017);
	assert.equal(await dollars('claude-haiku-5-5', { input_tokens: 20000, cache_read_input_tokens: 80000, output_tokens: 1000 }), 0.0033);
});

test('message_delta overwrites what message_start said, and null does not', async () => {
	const answer = await world.ask({ key, stream: true, script: { start_usage: { input_tokens: 7, cache_read_input_tokens: 50, output_tokens: 3 },
		usage: { input_tokens: 900, cache_read_input_tokens: null, output_tokens: 40 } } });
	const record = await world.weir.record(answer.headers.get('x-weir-request-id'));
	assert.equal(record.tokens.input, 900);
	assert.equal(record.tokens.cache_read, 50);
	assert.equal(record.tokens.output, 40);
});

test('every spelling of the event stream is metered alike, whole and byte by byte', async () => {
	for (const style of ['crlf', 'cr', 'tight', 'comments', 'nameless', 'bom', 'lines'])
		for (const every of [undefined, 1]) {
			const answer = await world.ask({ key, stream: true, script: { style, every, events: 2, usage: { input_tokens: 4321, output_tokens: 99 } } });
			const record = await world.weir.record(answer.headers.get('x-weir-request-id'));
			assert.equal(record.tokens.input, 4321, style);
			assert.equal(record.tokens.output, 99, style);
			assert.equal(record.outcome, 'ok', style);
			assert.equal(String(record.cost_nusd), (await world.provider.last()).cost_nusd, style);
		}
});

test('the provider answers with another model than was asked for: the record says what was asked and sent', async () => {
	const answer = await world.ask({ key, script: { model: 'claude-sonnet-5-5-20260928', usage: { input_tokens: 100, output_tokens: 10 } } });
	assert.equal(answer.status, 200);
	const record = await world.weir.record(answer.headers.get('x-weir-request-id'));
	assert.equal(String(record.cost_nusd), (await world.provider.last()).cost_nusd);
});

test('a provider\'s refusal costs nothing', async () => {
	for (const error of ['prompt_too_long', 'rate_limit', 'internal', 'overloaded', 'edge_too_large']) {
		const answer = await world.ask({ key, script: { error } });
		const record = await world.weir.record(answer.headers.get('x-weir-request-id'));
		assert.equal(record.cost_nusd, 0, error);
		assert.equal(record.outcome, 'provider_error', error);
		assert.equal(record.status, answer.status);
	}
});

test('a model without a price is refused under a cost budget, with the way to price it, and flagged otherwise', async () => {
	const rich = await world.weir.key('rich', '--budget', '1000');
	const body = messageBody({ model: 'claude-new-thing-9' });
	const before = (await world.provider.stats()).requests;
	const message = refused(await world.ask({ key: rich, body }), 400, 'invalid_request_error');
	assert.match(message, /claude-new-thing-9/);
	assert.match(message, /prices/);
	assert.equal((await world.provider.stats()).requests, before);
	const free = await world.ask({ key, body });
	assert.equal(free.status, 200);
	const record = await world.weir.record(free.headers.get('x-weir-request-id'));
	assert.ok(record.flags.includes('unpriced'));
	assert.ok((await world.weir.metrics()).sum('weir_unpriced_requests_total') >= 1);
});

test('a price in the settings makes that model priced, and overrides a list price', async () => {
	const priced = await World.open({ settings: { prices: [
		{ provider: 'anthropic', model: 'claude-new-thing-9', prices: [{ valid_from: '2026-01-01', input: 3000000, output: 15000000 }] },
		{ provider: 'anthropic', model: 'claude-opus-5-5', prices: [{ valid_from: '2026-01-01', input: 1, output: 0 }] }] } });
	try {
		const rich = await priced.weir.key('rich', '--budget', '1000');
		const cost = async (model, usage) => {
			const answer = await priced.ask({ key: rich, body: messageBody({ model, max_tokens: 100000, script: { usage } }) });
			assert.equal(answer.status, 200, answer.body.toString());
			return (await priced.weir.record(answer.headers.get('x-weir-request-id'))).cost_nusd;
		};
		assert.equal(await cost('claude-new-thing-9', { input_tokens: 1000, output_tokens: 1000 }), 18000000);
		for (const [tokens, nusd] of [[499, 0], [500, 1], [1499, 1], [1500, 2]])
			assert.equal(await cost('claude-opus-5-5', { input_tokens: tokens, output_tokens: 0 }), nusd, `${tokens} pico-dollars, rounded half up`);
	} finally {
		await priced.close();
	}
});

test('the metrics agree with the records', async () => {
	const metrics = await world.weir.metrics();
	const records = await until(async () => {
		const stored = await world.weir.logs();
		return stored.length === metrics.sum('weir_requests_total', { route: 'messages' }) && stored;
	}, 'a record of each request that is counted');
	const sum = (f) => records.reduce((n, r) => n + f(r), 0);
	assert.equal(metrics.sum('weir_cost_dollars_total').toFixed(9), (sum((r) => r.cost_nusd) / 1e9).toFixed(9));
	for (const name of CLASSES.slice(0, 5))
		assert.equal(metrics.sum('weir_tokens_total', { class: name }), sum((r) => r.tokens[name]), name);
	assert.equal(metrics.sum('weir_web_searches_total'), sum((r) => r.tokens.web_searches));
	assert.equal(metrics.sum('weir_requests_in_flight'), 0);
	assert.equal(metrics.sum('weir_budget_held_dollars'), 0);
});
