// What an answer says of its way, whatever way that was: each header of the list
// below, once, with its value, in plain answers and in streams, from a provider, from
// the cache, and of weir's own.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { World, until } from './harness.mjs';
import { HARDY, MODEL, fallback, inline, newLabel, outages, recordOf, saved, target, walk } from './routes.mjs';

const HAIKU = 'claude-haiku-5-5', CACHE = { mode: 'simple' }, RETRY = { attempts: 1 };
const NAMES = ['x-portkey-trace-id', 'x-portkey-cache-status', 'x-portkey-retry-attempt-count', 'x-portkey-last-used-option-index', 'x-portkey-provider',
	'x-weir-provider', 'x-weir-model', 'x-weir-attempts', 'x-weir-config'];
let world, key, poor;

before(async () => {
	world = await World.open({ providers: [{ slug: 'a' }, { slug: 'b', settings: { models: [MODEL] } }, { slug: 'full', settings: { rate_limits: [{ type: 'requests', unit: 'rpd', value: 1 }] } }],
		settings: { ...HARDY, default_provider: 'a', limits: { first_byte_ms: 60000 }, configs: [{ slug: 'pc-both', config: fallback(['a', 'b']) }] } });
	key = await world.weir.key('headers');
	poor = await world.weir.key('headers-poor', '--rpm', '1');
	await walk(world, { key: poor });
	await walk(world, { key, headers: [['x-portkey-provider', '@full']] });
});
after(() => world.close());

/** All of the list that the answer has; that each came once is the reader's to check. */
const headersOf = (answer) => Object.fromEntries(NAMES.filter((name) => answer.headers.has(name)).map((name) => [name, answer.headers.get(name)]));
const way = (index, slug, { cache = 'DISABLED', retries = 0, attempts = 1, model = MODEL, config = 'inline' } = {}) => ({ 'x-portkey-cache-status': cache, 'x-portkey-retry-attempt-count': String(retries),
	'x-portkey-last-used-option-index': index, 'x-portkey-provider': 'anthropic', 'x-weir-provider': slug, 'x-weir-model': model, 'x-weir-attempts': String(attempts), 'x-weir-config': config });

/* What happens, the request, how the accounts are, the answer's status, and its way; null: it was not routed. */
const ROWS = [
	['no config', {}, {}, 200, way('config', 'a', { config: null })],
	['a provider by header', { headers: [['x-portkey-provider', '@b']] }, {}, 200, way('config', 'b', { config: null })],
	['a saved config', { headers: [saved('pc-both')] }, {}, 200, way('config.targets[0]', 'a', { config: 'pc-both' })],
	['a config of its own', { config: target('b') }, {}, 200, way('config', 'b')],
	['another model', { config: target('a', { override_params: { model: HAIKU } }) }, {}, 200, way('config', 'a', { model: HAIKU })],
	['fallen back', { headers: [saved('pc-both')] }, { a: 'overloaded' }, 200, way('config.targets[1]', 'b', { attempts: 2, config: 'pc-both' })],
	['fallen back deep inside', { config: fallback(['a', fallback(['a', 'b'])]) }, { a: 'internal' }, 200, way('config.targets[1].targets[1]', 'b', { attempts: 3 })],
	['nobody is left', { config: fallback(['a', 'b']) }, { a: 'internal', b: 'overloaded' }, 529, way('config.targets[1]', 'b', { attempts: 2 })],
	['the provider\'s refusal', { script: { error: 'prompt_too_long' } }, {}, 400, way('config', 'a', { config: null })],
	['tried again', { config: target('a', { retry: RETRY }), script: { in_turn: [{ error: 'overloaded' }, {}] } }, {}, 200, way('config', 'a', { retries: 1, attempts: 2 })],
	['no need to try again', { config: target('a', { retry: RETRY }) }, {}, 200, way('config', 'a')],
	['tried again in vain', { config: target('a', { retry: RETRY }) }, { a: 'internal' }, 500, way('config', 'a', { retries: -1, attempts: 2 })],
	['nothing to try again for', { config: target('a', { retry: RETRY }), script: { error: 'prompt_too_long' } }, {}, 400, way('config', 'a')],
	['tried again, and fallen back', { config: { ...fallback(['a', 'b']), retry: RETRY } }, { a: 'internal' }, 200, way('config.targets[1]', 'b', { attempts: 3 })],
	['an account that does not listen', { config: target('a') }, { a: 'refused' }, 502, way('config', 'a', { attempts: 0 })],
	['it was tried again', { config: target('a', { retry: RETRY }) }, { a: 'refused' }, 502, way('config', 'a', { retries: -1, attempts: 0 })],
	['a request_timeout', { config: target('a', { request_timeout: 100 }), script: { fault: { kind: 'stall_before_head' } } }, {}, 408, way('config', 'a')],
	['a model that the target does not have', { config: target('b'), body: { model: HAIKU } }, {}, 404, way('config', 'b', { attempts: 0, model: HAIKU })],
	['the same, where it would be tried again', { config: target('b', { retry: RETRY }), body: { model: HAIKU } }, {}, 404, way('config', 'b', { attempts: 0, model: HAIKU })],
	['a full account', { config: target('full', { retry: RETRY }) }, {}, 429, way('config', 'full', { attempts: 0 })],
	['a full account, fallen back', { config: fallback(['full', 'b']) }, {}, 200, way('config.targets[1]', 'b')],
	['a key that is over its rate', { key: () => poor, config: target('a', { retry: RETRY, cache: CACHE }) }, {}, 429, way('config', 'a', { cache: 'MISS', attempts: 0 })],
	['no key', { key: () => 'weir_sk_nobody', headers: [saved('pc-both')] }, {}, 401, null],
	['no such config', { headers: [saved('pc-nobody')] }, {}, 400, null],
	['a config that is wrong', { config: { retry: {} } }, {}, 400, null],
	['no such path', { path: '/v1/nothing' }, {}, 404, null],
	['a body that is none', { text: '{' }, {}, 400, null],
];

const traced = ['x-portkey-trace-id', 'trace-of-the-test'];
function says(answer, status, expected, trace = traced[1]) {
	assert.equal(answer.status, status, answer.body.toString());
	const { 'x-weir-config': config, ...got } = headersOf(answer), { 'x-weir-config': wanted, ...rest } = expected ?? {};
	assert.deepEqual(got, { 'x-portkey-trace-id': trace, ...rest });
	assert.equal(config?.replace(/@[0-9a-f]{8}$/, '') ?? null, wanted ?? null);
	assert.ok(!answer.headers.has('x-portkey-gateway-exception'));
}

for (const [name, request, modes, status, expected] of ROWS)
	test(name, async () => {
		try {
			await outages(world, modes);
			for (const stream of [false, true]) {
				const { answer } = await walk(world, { ...request, key: request.key?.() ?? key, stream, headers: [...(request.headers ?? []), traced] });
				says(answer, status, expected);
				if (!expected)
					continue;
				const record = await recordOf(world, answer);
				assert.deepEqual([record.target, record.provider, record.model, String(record.retries), String(record.attempts), record.cache_status, record.trace_id],
					[expected['x-portkey-last-used-option-index'], ...['x-weir-provider', 'x-weir-model', 'x-portkey-retry-attempt-count', 'x-weir-attempts', 'x-portkey-cache-status'].map((n) => expected[n]), traced[1]]);
			}
		} finally {
			await outages(world);
		}
	});

describe('the cache', () => {
	for (const stream of [false, true])
		for (const [name, config, modes, index, slug, model, attempts] of [['one target', target('a', { cache: CACHE, retry: RETRY }), {}, 'config', 'a', MODEL, 1],
			['another model', target('a', { cache: CACHE, override_params: { model: HAIKU } }), {}, 'config', 'a', HAIKU, 1], ['the second target', fallback(['a', 'b'], {}, { cache: CACHE, retry: RETRY }), { a: 'internal' }, 'config.targets[1]', 'b', MODEL, 3]])
			test(`${stream ? 'a stream' : 'a plain answer'}, ${name}: MISS, HIT, REFRESH`, async () => {
				const label = newLabel(), ask = (...headers) => walk(world, { key, config, label, stream, headers: [traced, ...headers] }).then(({ answer }) => answer);
				try {
					await outages(world, modes);
					says(await ask(), 200, way(index, slug, { cache: 'MISS', model, attempts }));
					await outages(world);
					const hit = await until(async () => {
						const answer = await ask();
						return answer.headers.get('x-portkey-cache-status') === 'HIT' && answer;
					}, 'it is stored', undefined, 20);
					/* The first target whose question it is: nobody was asked. */
					says(hit, 200, way(index.replace('[1]', '[0]'), 'a', { cache: 'HIT', model, attempts: 0 }));
					assert.equal((await recordOf(world, hit)).retries, 0);
					says(await ask(['x-portkey-cache-force-refresh', 'true']), 200, way(index.replace('[1]', '[0]'), 'a', { cache: 'REFRESH', model }));
				} finally {
					await outages(world);
				}
			});
});

describe('the trace', () => {
	const ways = { served: {}, refused: { key: 'weir_sk_nobody' } };
	for (const [kind, more] of Object.entries(ways)) {
		const trace = async (...headers) => {
			const { answer } = await walk(world, { key, ...more, headers });
			return [answer.headers.get('x-portkey-trace-id'), answer.headers.get('x-weir-request-id')];
		};

		test(`${kind}: the request's own, else that of its traceparent, else its id`, async () => {
			const parent = ['traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'];
			assert.equal((await trace(traced, parent))[0], traced[1]);
			assert.equal((await trace(parent))[0], '0af7651916cd43dd8448eb211c80319c');
			for (const headers of [[], [['traceparent', 'nonsense']], [['x-portkey-trace-id', 'x'.repeat(300)]]]) {
				const [got, id] = await trace(...headers);
				assert.match(id, /^req_/);
				assert.equal(got, id);
			}
		});
	}
});

test('a stream that has to wait says where it is, and not that it has failed', async () => {
	const slow = await World.open({ providers: [{ slug: 'a' }], settings: { ...HARDY, limits: { ping_ms: 100 } } });
	try {
		const own = await slow.weir.key('slow'), config = target('a', { retry: RETRY });
		/* It waits for the first attempt, or, behind that, for the second. */
		for (const [script, said, retries] of [[{ delay_head_ms: 1000 }, /^0$/, 0], [{ in_turn: [{ error: 'overloaded' }, {}] }, /^[01]$/, 1]]) {
			const { answer } = await walk(slow, { key: own, stream: true, config, script, headers: [traced] });
			assert.match(answer.body.toString(), /^: wait\n/);
			assert.match(answer.headers.get('x-portkey-retry-attempt-count'), said);
			assert.equal((await recordOf(slow, answer)).retries, retries);
		}
	} finally {
		await slow.close();
	}
});

test('what a provider says of another gateway is not taken for weir\'s', async () => {
	const theirs = NAMES.filter((n) => n !== 'x-weir-config').map((name) => [name, 'theirs']);
	for (const stream of [false, true]) {
		const { answer } = await walk(world, { key, stream, script: { headers: theirs }, headers: [traced] });
		says(answer, 200, way('config', 'a', { config: null }));
	}
});
