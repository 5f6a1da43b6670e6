// Answers that are given again: what is the same request, who shares, how long,
// and that many who ask the same at once ask the provider once.
//
//	WEIR_STAMPEDE	how many at once (2,000; 10,000 is the long form)

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, describe, test } from 'node:test';

import { parseEvents, withoutPings } from './client.mjs';
import { World, messageBody, messageRequest, parallel, requestBytes, until } from './harness.mjs';
import { HARDY, MODEL, fallback, followed, inline, isAnswerOf, newLabel, recordOf, routeOf, target, walk } from './routes.mjs';

const STAMPEDE = Number(process.env.WEIR_STAMPEDE ?? 2000);
const AGE_S = 60;		/* the shortest that may be said */
const USAGE = { input_tokens: 1000, output_tokens: 100 };
let world, key, aged;

before(async () => {
	world = await World.open({ workers: 4, providers: [{ slug: 'a' }, { slug: 'b' }], settings: { ...HARDY, custom_hosts: { trusted: ['127.0.0.1'] } } });
	key = await world.weir.key('cache');
	await begun(world, key);
	aged = await storedAt();
});
after(() => world.close());

const cached = (more = {}, ms = undefined) => target('a', { cache: { mode: 'simple', ...more }, request_timeout: ms });
/** The same request each time for one label. */
const ask = (label, { world: where = world, ...rest } = {}) => walk(where, { key, config: cached(), label, script: { events: 3, usage: USAGE }, ...rest });
/** Waits until all workers have found the store: it is made while they start. */
const begun = (where, who) => until(async () => {
	for (let i = 0; i < 32; i++)	/* on connections of their own: any worker's */
		if ((await where.ask({ key: who, headers: [inline(cached())], body: messageBody({ script: { events: 0, label: newLabel() } }) })).headers.get('x-portkey-cache-status') === 'DISABLED')
			return false;
	return true;
}, 'the store is there');
/** An entry reaches the store a moment after its answer: asks until it is there. */
async function stored(label, rest) {
	const first = await ask(label, rest);
	assert.equal(first.route.cache, 'MISS', first.answer.body.toString());
	return [first, await until(async () => {
		const again = await ask(label, rest);
		return again.route.cache === 'HIT' && again;
	}, 'the answer is stored', undefined, 20)];
}

/* Stored at the beginning, for a look at their age at the end: the request, and whether it is over then. */
const AGED = [[{ config: cached({ max_age: AGE_S }) }, true], [{ config: cached({ max_age: 1 }) }, false], [{ headers: [['cache-control', `max-age=${AGE_S}`]] }, true],
	[{ headers: [['cache-control', 'no-store']] }, false], [{ config: cached({ max_age: 3600 }), headers: [['cache-control', `max-age=${AGE_S}`]] }, false]];
async function storedAt() {
	const labels = [];
	for (const [request] of AGED) {
		labels.push(newLabel());
		await stored(labels.at(-1), request);
	}
	return { labels, end: Date.now() };
}

test('the second time it is not asked: the same bytes, nothing to pay, and what was saved', async () => {
	const label = newLabel(), [first, second] = await stored(label);
	isAnswerOf(first, 'a');
	assert.ok(second.answer.body.equals(first.answer.body));
	assert.deepEqual([second.answer.status, second.route.retries, second.answer.headers.get('content-type')], [200, 0, first.answer.headers.get('content-type')]);
	const [paid, free] = [await recordOf(world, first.answer), await recordOf(world, second.answer)];
	assert.deepEqual([paid.cache_status, paid.saved_nusd, paid.cost_nusd], ['MISS', 0, 1000 * 2000 + 100 * 10000]);
	assert.deepEqual([free.cache_status, free.saved_nusd, free.cost_nusd, free.attempts, free.outcome], ['HIT', paid.cost_nusd, 0, 0, 'ok']);
	assert.notEqual(second.answer.headers.get('x-weir-request-id'), first.answer.headers.get('x-weir-request-id'));
	for (let i = 0; i < 20; i++)	/* any worker has it */
		assert.equal((await ask(label)).route.cache, 'HIT');
});

test('without a word of it nothing is looked up or kept', async () => {
	const label = newLabel();
	await stored(label);
	for (let i = 0; i < 2; i++)
		assert.equal((await ask(label, { config: target('a') })).route.cache, 'DISABLED');
	assert.equal((await followed(world, label)).hits.a, 3);
});

describe('what is the same', () => {
	const text = (label, edit = (t) => t) => edit(`{"model":"${MODEL}","max_tokens":64,"metadata":{"user_id":"u"},"messages":[{"role":"user","content":${JSON.stringify(JSON.stringify({ fake: { label } }))}}]}`);

	test('order of members and white space do not matter, at any depth', async () => {
		const label = newLabel();
		await stored(label, { text: text(label) });
		for (const same of [text(label, (t) => t.replaceAll(',"', ' ,\n\t"')), text(label, (t) => t.replace('"role":"user",', '').replace('}]}', ',"role":"user"}]}')),
			`{"messages":${JSON.stringify(JSON.parse(text(label)).messages)},"metadata" : {"user_id":"u"},"max_tokens":64,"model":"${MODEL}"}`]) {
			assert.deepEqual(JSON.parse(same), JSON.parse(text(label)));
			assert.equal((await ask(label, { text: same })).route.cache, 'HIT', same);
		}
	});

	test('everything else does', async () => {
		const label = newLabel();
		await stored(label, { text: text(label) });
		for (const other of [(t) => t.replace('64', '65'), (t) => t.replace('"u"', '"v"'), (t) => t.replace(MODEL, 'claude-opus-5-5'), (t) => t.replace('{"model"', '{"stream":true,"model"'),
			(t) => t.replace('"metadata":{"user_id":"u"},', ''), (t) => t.replace('"messages":[', '"messages":[{"role":"user","content":"x"},'), (t) => t.replace('{"model"', '{"temperature":1,"model"')])
			assert.equal((await ask(label, { text: text(label, other) })).route.cache, 'MISS', other.toString());
	});

	test('so do headers that the provider sees, each line of them, and where the request goes', async () => {
		const beta = (...names) => names.map((name) => ['anthropic-beta', name]), source = (value) => [['x-portkey-forward-headers', 'x-source'], ['x-source', value]];
		for (const [one, other] of [[beta('a-1'), beta('a-1', 'b-2')], [beta('a-1', 'b-2'), beta('a-1', 'c-3')], [source('x'), source('y')],
			[[['anthropic-version', '2023-06-01']], [['anthropic-version', '2026-10-21']]], [[], [['x-portkey-custom-host', `${world.providers.a.url}/v1`]]]]) {
			const label = newLabel();
			await stored(label, { headers: one });
			const seen = await ask(label, { headers: other });
			assert.deepEqual([seen.answer.status, seen.route.cache], [200, 'MISS'], JSON.stringify(other));
			assert.equal((await ask(label, { headers: [['x-other', '1'], ...one] })).route.cache, 'HIT');
		}
	});

	test('inline configs count as they are written: two with the same version are not the same', async () => {
		const seen = new Map();
		for (let ms = 10000, twin; ; ms++) {
			const one = cached({}, ms), version = createHash('sha256').update(JSON.stringify(one)).digest('hex').slice(0, 8);
			if ((twin = seen.get(version)) === undefined) {
				seen.set(version, one);
				continue;
			}
			const label = newLabel(), [first] = await stored(label, { config: one }), other = await ask(label, { config: twin });
			assert.equal(other.route.config, first.route.config);
			assert.equal(other.route.cache, 'MISS');
			return;
		}
	});

	test('it is what goes upstream that counts: overrides make another request', async () => {
		const label = newLabel();
		await stored(label);
		assert.equal((await ask(label, { config: { ...cached(), override_params: { max_tokens: 7 } } })).route.cache, 'MISS');
	});
});

describe('who shares', () => {
	test('each key has its own', async () => {
		const label = newLabel(), other = await world.weir.key('cache-other');
		await stored(label);
		assert.equal((await ask(label, { key: other })).route.cache, 'MISS');
	});

	test('no workspace sees another one\'s, not by a namespace either', async () => {
		const label = newLabel(), space = ['x-portkey-cache-namespace', 'shared'], other = await world.weir.key('cache', '--workspace', 'elsewhere');
		await stored(label, { headers: [space] });
		assert.equal((await ask(label, { key: other, headers: [space] })).route.cache, 'MISS');
	});

	test('nobody\'s metadata sees what another\'s has got, in whatever order it is written', async () => {
		const label = newLabel(), metadata = (text) => ({ headers: [['x-portkey-metadata', text]] });
		await stored(label, metadata('{"user":"u1","team":"x"}'));
		assert.equal((await ask(label, metadata('{ "team":"x", "user":"u1" }'))).route.cache, 'HIT');
		for (const other of ['{"user":"u2","team":"x"}', '{"user":"u1"}'])
			assert.equal((await ask(label, metadata(other))).route.cache, 'MISS', other);
		assert.equal((await ask(label)).route.cache, 'MISS');
	});

	test('but a namespace is shared by all of a workspace: its keys, whatever their metadata', async () => {
		const label = newLabel(), space = ['x-portkey-cache-namespace', 'common'], other = await world.weir.key('cache-shared');
		const [first] = await stored(label, { headers: [space, ['x-portkey-metadata', '{"user":"u1"}']] });
		const hit = await ask(label, { key: other, headers: [space, ['x-portkey-metadata', '{"user":"u2"}']] });
		assert.equal(hit.route.cache, 'HIT');
		assert.ok(hit.answer.body.equals(first.answer.body));
	});

	test('another config is another place, though it sends the same', async () => {
		const label = newLabel();
		await stored(label);
		assert.equal((await ask(label, { config: cached({ max_age: 3600 }) })).route.cache, 'MISS');
	});

	test('a namespace is a place of its own', async () => {
		const label = newLabel(), space = (name) => ({ headers: [['x-portkey-cache-namespace', name]] });
		await stored(label, space('one'));
		assert.equal((await ask(label, space('two'))).route.cache, 'MISS');
		assert.equal((await ask(label)).route.cache, 'MISS');
		assert.equal((await ask(label, space('one'))).route.cache, 'HIT');
	});
});

test('semantic is simple for messages', async () => {
	const [, hit] = await stored(newLabel(), { config: target('a', { cache: { mode: 'semantic' } }) });
	assert.equal(hit.route.cache, 'HIT');
});

test('x-portkey-debug: false: nothing is kept, but what is there is given', async () => {
	const label = newLabel(), quiet = { headers: [['x-portkey-debug', 'False']] };
	for (let i = 1; i <= 3; i++)
		assert.deepEqual([(await ask(label, quiet)).route.cache, (await followed(world, label)).hits.a], ['MISS', i]);
	await stored(label);
	assert.deepEqual([(await ask(label, quiet)).route.cache, (await followed(world, label)).hits.a], ['HIT', 4]);
});

describe('what a hit takes', () => {
	let small, own;
	before(async () => {
		small = await World.open({ providers: [{ slug: 'a', settings: { rate_limits: [{ type: 'requests', unit: 'rpd', value: 37 }] } }], settings: HARDY });
		own = await small.weir.key('small');
		await begun(small, own);
	});
	after(() => small.close());

	test('nothing of a budget: one that is spent gives hits, and no more', async () => {
		const poor = await world.weir.key('cache-poor', '--budget', '0.05'), label = newLabel();
		const [first] = await stored(label, { key: poor });
		await world.weir.spends(poor, BigInt((await recordOf(world, first.answer)).cost_nusd));
		assert.equal((await ask(newLabel(), { key: poor, script: { usage: { output_tokens: 10000000 } } })).answer.status, 200);
		await until(async () => (await ask(newLabel(), { key: poor })).answer.status === 429, 'the money is spent');
		assert.deepEqual([(await ask(label, { key: poor })).route.cache, (await ask(label, { key: poor })).answer.status], ['HIT', 200]);
	});

	test('of its key\'s rates what any request does', async () => {
		const slow = await world.weir.key('cache-slow', '--rpm', '4'), label = newLabel(), seen = [];
		for (let i = 0; i < 5; i++)
			seen.push((await ask(label, { key: slow })).answer.status);
		assert.deepEqual(seen, [200, 200, 200, 200, 429]);
		assert.equal((await followed(world, label)).hits.a, 1);
	});

	test('nothing of its provider\'s rates', async () => {
		const label = newLabel(), there = { world: small, key: own };
		await stored(label, there);
		for (let i = 0; i < 8; i++)
			assert.equal((await ask(label, there)).route.cache, 'HIT');
		const rest = [];
		for (let i = 0; i < 5; i++)
			rest.push((await ask(newLabel(), there)).answer.status);
		assert.deepEqual(rest, [200, 200, 200, 200, 429], 'the first one, and 32 before it');
		assert.deepEqual([(await ask(label, there)).route.cache, (await ask(label, there)).answer.status], ['HIT', 200]);
	});
});

test('what is larger than cache.entry_bytes, and what a budget has shortened, is not kept', async () => {
	const small = await World.open({ providers: [{ slug: 'a' }], settings: { ...HARDY, cache: { entry_bytes: 8192 } } });
	try {
		const own = await small.weir.key('small'), clamped = await small.weir.key('clamped', '--budget', '1');
		await begun(small, own);
		for (const rest of [{ key: own, script: { events: 200, text_bytes: 100 } }, { key: own, stream: true, script: { events: 200, text_bytes: 100 } }, { key: clamped, body: { model: 'claude-opus-5-5', max_tokens: 64000 } }]) {
			const label = newLabel();
			for (let i = 1; i <= 3; i++) {
				const seen = await ask(label, { world: small, ...rest });
				assert.deepEqual([seen.answer.status, seen.route.cache, seen.hits.a], [200, 'MISS', i]);
				assert.equal(seen.answer.headers.has('x-weir-max-tokens'), rest.key === clamped);
			}
		}
		await stored(newLabel(), { world: small, key: own });
	} finally {
		await small.close();
	}
});

test('without room nothing is looked up or kept; without patience nobody waits for another one', async () => {
	for (const [cache, status] of [[{ bytes: 0 }, 'DISABLED'], [{ wait_ms: 0 }, 'MISS']]) {
		const other = await World.open({ providers: [{ slug: 'a' }], settings: { ...HARDY, cache } });
		try {
			const own = await other.weir.key('other'), label = newLabel(), script = { hold: { before_head: true, gate: label } };
			if (status === 'MISS')
				await begun(other, own);
			const both = [ask(label, { world: other, key: own, script }), ask(label, { world: other, key: own, script })];
			await other.provider.held(2);
			await other.provider.release(label);
			for (const { answer, route } of await Promise.all(both))
				assert.deepEqual([answer.status, route.cache], [200, status]);
		} finally {
			await other.close();
		}
	}
});

test('a forced refresh asks again and keeps the new answer', async () => {
	const label = newLabel(), script = { in_turn: [{ events: 1 }, { events: 7 }] };
	const [old] = await stored(label, { script });
	const fresh = await ask(label, { script, headers: [['x-portkey-cache-force-refresh', 'true']] });
	assert.equal(fresh.route.cache, 'REFRESH');
	isAnswerOf(fresh, 'a');
	assert.ok(!fresh.answer.body.equals(old.answer.body));
	/* It is on its way to the store for a moment, in which the old one is still there; and then never again. */
	const now = await until(async () => {
		const again = await ask(label, { script });
		return again.route.cache === 'HIT' && !again.answer.body.equals(old.answer.body) && again;
	}, 'the new answer is stored', undefined, 20);
	for (let i = 0; i < 20; i++)
		assert.ok((await ask(label, { script })).answer.body.equals(now.answer.body));
	assert.equal(JSON.parse(now.answer.body).usage.output_tokens, JSON.parse(fresh.answer.body).usage.output_tokens);
	assert.equal((await recordOf(world, fresh.answer)).cache_status, 'REFRESH');
});

test('a stream comes again as a stream, with all its events', async () => {
	for (const script of [{ events: 30, thinking: 3, tool: true, ping_every: 5, usage: USAGE }, { events: 4, style: 'crlf' }, { events: 2, results: 2, container: true }]) {
		const [first, second] = await stored(newLabel(), { stream: true, script });
		assert.match(second.answer.headers.get('content-type'), /^text\/event-stream/);
		assert.ok(withoutPings(second.answer.body).equals(withoutPings(first.answer.body)), 'but for pings it is the same stream');
		if (!script.style)
			assert.equal(parseEvents(second.answer.body).at(-1).event, 'message_stop');
	}
});

/* What is not whole, or no success. */
const NEVER = [['an error', { error: 'overloaded' }], ['a refusal of the request', { error: 'prompt_too_long' }], ['a stream that breaks off', { events: 9, fault: { kind: 'reset', after_events: 6 } }, true],
	['a stream that ends too early', { events: 9, end_after: 6 }, true], ['a stream with an error event', { events: 9, error_after: 6 }, true],
	['a plain answer that breaks off', { events: 2000, fault: { kind: 'close' } }], ['a body that is shorter than announced', { events: 9, fault: { kind: 'short_body' } }]];

for (const [name, script, stream = false] of NEVER)
	test(`${name} is not kept`, async () => {
		const label = newLabel();
		for (let i = 1; i <= 3; i++) {
			const { route, hits } = await ask(label, { script, stream, mayBreak: true });
			assert.equal(route?.cache ?? 'MISS', 'MISS');
			assert.ok(hits.a >= i, `asked ${hits.a} times of ${i}`);
		}
	});

test('what is larger than an entry may be is not kept, and counted', async () => {
	const small = await World.open({ providers: [{ slug: 'a' }], settings: { ...HARDY, cache: { bytes: 8388608, entry_bytes: 4096 } } });
	try {
		const own = await small.weir.key('small'), label = newLabel(), script = { events: 400 };
		for (let i = 1; i <= 2; i++) {
			const seen = await walk(small, { key: own, config: cached(), label, script });
			assert.equal(seen.route.cache, 'MISS');
			assert.ok(seen.answer.body.length > 4096);
			assert.equal((await small.weir.metrics()).sum('weir_cache_refused_total', { reason: 'too_large' }), i);
		}
		assert.equal((await followed(small, label)).hits.a, 2);
	} finally {
		await small.close();
	}
});

test('what has no room for the client\'s name of its model is fetched each time', async () => {
	const small = await World.open({ providers: [{ slug: 'a' }], settings: { ...HARDY, limits: { body_bytes: 4096 } } });
	try {
		const own = await small.weir.key('small'), label = newLabel(), renamed = target('a', { cache: { mode: 'simple' }, override_params: { model: 'claude-opus-5-5' } });
		const one = (config, name) => walk(small, { key: own, config, label: name, stream: true, script: { events: 20, text_bytes: 500 } });
		await until(async () => (await one({ ...renamed, name: 'other' }, newLabel())).route.cache === 'MISS', 'there is a cache');
		const entries = async () => (await small.weir.metrics()).sum('weir_cache_entries'), before = await until(entries, 'it keeps');
		for (let i = 0; i < 3; i++) {
			const seen = await one(renamed, label);
			assert.equal(seen.route.cache, 'MISS');
			assert.equal(parseEvents(seen.answer.body).at(-1).event, 'message_stop');
			assert.match(seen.answer.body.toString(), new RegExp(`"model":"${MODEL}"`));
			await until(async () => await entries() > before, 'it is kept');
		}
	} finally {
		await small.close();
	}
});

test('what was cut off by its client is not kept', async () => {
	const label = newLabel(), body = messageBody({ stream: true, script: { label, events: 200, delay_ms: 5 } });
	const client = await world.open();
	await client.send(messageRequest({ key, headers: [inline(cached())], body }));
	await client.head();
	client.close();
	await until(async () => (await world.providers.a.stats()).in_flight === 0, 'the provider is left');
	const again = await walk(world, { key, config: cached(), label, text: body });
	assert.equal(again.route.cache, 'MISS');
	assert.equal(parseEvents(again.answer.body).at(-1).event, 'message_stop');
});

test('counting is never kept', async () => {
	const headers = [inline(cached())], body = JSON.stringify({ model: MODEL, messages: [{ role: 'user', content: newLabel() }] });
	for (let i = 0; i < 2; i++)
		assert.notEqual(routeOf(await world.ask({ key, headers, body, path: '/v1/messages/count_tokens' })).cache, 'HIT');
});

test('an answer of the second target is kept like one of the first', async () => {
	const script = { accounts: { a: { error: 'internal' } } }, config = { ...fallback(['a', 'b']), cache: { mode: 'simple' } };
	const [first, second] = await stored(newLabel(), { config, script });
	isAnswerOf(first, 'b');
	assert.ok(second.answer.body.equals(first.answer.body));
});

/** Writes so many identical requests on connections of their own, then lets the provider answer the first; the answers. */
async function stampede(count, label, stream) {
	const script = { label, in_turn: [{ hold: { before_head: true, gate: label } }, {}] };
	const bytes = requestBytes(messageRequest({ key, headers: [inline(cached())], body: messageBody({ stream, script }) }));
	const clients = await parallel(count, 100, () => world.open());
	const answers = clients.map((client) => client.response());
	await Promise.all(clients.map((client) => client.write(bytes)));
	await world.providers.a.held(1);
	await world.providers.a.release(label);
	const all = await Promise.all(answers);
	clients.forEach((client) => client.close());
	return all;
}

test(`${STAMPEDE} at once, on four workers: the provider is asked once`, async () => {
	for (const stream of [false, true]) {
		const label = newLabel(), answers = await stampede(STAMPEDE, label, stream);
		const { at } = await followed(world, label);
		assert.equal(at.a.length, 1);
		const [first] = answers.map((a) => withoutPings(a.body));
		for (const answer of answers) {
			assert.equal(answer.status, 200);
			assert.ok(withoutPings(answer.body).equals(first), 'all get the same answer');
		}
		const count = (status) => answers.filter((a) => routeOf(a).cache === status).length;
		assert.deepEqual([count('MISS'), count('HIT')], [1, STAMPEDE - 1]);
	}
});

test('if the one who asked gets an error, another one asks', async () => {
	const label = newLabel(), script = { in_turn: [{ error: 'overloaded' }, {}] };
	const bytes = messageRequest({ key, headers: [inline(cached())], body: messageBody({ script: { label, ...script } }) });
	const answers = await parallel(40, 40, async () => {
		const client = await world.open();
		const answer = await client.exchange(bytes);
		client.close();
		return answer;
	});
	assert.ok(answers.filter((a) => a.status !== 200).length <= 1, 'one error was given once');
	assert.ok((await followed(world, label)).hits.a <= 3);
});

test('if the one who asked leaves, another one asks', async () => {
	const label = newLabel(), body = messageBody({ script: { label, in_turn: [{ hold: { before_head: true, gate: label } }, {}] } });
	const first = await world.open();
	await first.send(messageRequest({ key, headers: [inline(cached())], body }));
	await world.providers.a.held(1);
	const others = Array.from({ length: 20 }, () => world.ask({ key, headers: [inline(cached())], body }));
	first.close();
	for (const answer of await Promise.all(others))
		assert.equal(answer.status, 200);
	assert.equal((await followed(world, label)).hits.a, 2);
});

test('when its time is over an answer is not given again; a time that may not be said is a week, and the config goes before the request', async () => {
	await until(() => Date.now() - aged.end > AGE_S * 1000, 'a minute is over', 2 * AGE_S * 1000, 100);
	for (const [i, [request, over]] of AGED.entries())
		assert.equal((await ask(aged.labels[i], request)).route.cache, over ? 'MISS' : 'HIT', JSON.stringify(request));
});
