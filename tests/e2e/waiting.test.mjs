// A request that is not decided at once: it waits for room, or for the provider's
// count of its prompt. Whatever happens meanwhile, nothing is left behind.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Client, World, messageBody, messageRequest, refused, until } from './harness.mjs';

const PATIENT = { budgets: { admission_wait_ms: 20000 } };
const TEXT = 'word '.repeat(60000);	/* 300 KB: 300,000 tokens at the most, 75,000 as the provider counts */

async function within(options, job) {
	const w = await World.open(options);
	try {
		await job(w);
	} finally {
		await w.close();
	}
}

const held = (w, key, gate) => w.ask({ key, stream: true, script: { hold: { after_events: 2, gate } } });
const waiting = async (w) => (await w.weir.metrics()).sum('weir_admission_waiting');
const waits = (w, count) => until(async () => await waiting(w) === count, `${count} wait`);
const counts = async (w) => (await w.provider.requests(1e6)).filter((r) => r.target.startsWith('/v1/messages/count_tokens')).length;
const counting = (w, script) => w.provider.control('POST', '/__script', { counting: script });
/** A client that asks and can be closed at any time. */
async function leaving(w, key, options) {
	const client = await Client.open({ port: w.weir.port });
	await client.send(messageRequest({ key, ...options }));
	return client;
}
const long = () => messageBody({ max_tokens: 2000, messages: [{ role: 'user', content: TEXT }] });

describe('waiting for room', () => {
	test('a client that leaves leaves the queue, and the next one is served', () => within({ workers: 1, settings: PATIENT }, async (w) => {
		const key = await w.weir.key('leaver', '--concurrency', '1');
		const first = held(w, key, 'gone');
		await w.provider.held(1);
		const client = await leaving(w, key);
		await waits(w, 1);
		const stayer = w.ask({ key });
		await waits(w, 2);
		client.close();
		await waits(w, 1);
		await w.provider.release('gone');
		assert.equal((await first).status, 200);
		assert.equal((await stayer).status, 200);
		const records = await w.weir.records(3);
		const [left] = records.filter((r) => r.outcome === 'client_gone');
		assert.ok(left.flags.includes('waited') && left.wait_ns > 0 && left.cost_nusd === 0 && left.attempts === 0, JSON.stringify(left));
		assert.equal(await waiting(w), 0);
		assert.equal((await w.provider.requests(100)).length, 2, 'it never went upstream');
	}));

	test('the oldest is served first', () => within({ workers: 1, settings: PATIENT }, async (w) => {
		const key = await w.weir.key('order', '--concurrency', '1');
		const first = held(w, key, 'order'), done = [];
		await w.provider.held(1);
		const asked = [];
		for (let i = 0; i < 6; i++) {
			asked.push(w.ask({ key }).then((answer) => { done.push(i); return answer; }));
			await waits(w, i + 1);
		}
		await w.provider.release('order');
		assert.equal((await first).status, 200);
		for (const answer of await Promise.all(asked))
			assert.equal(answer.status, 200);
		assert.deepEqual(done, [0, 1, 2, 3, 4, 5]);
	}));

	test('a worker that stops finishes those that wait', () => within({ workers: 1, settings: PATIENT }, async (w) => {
		const key = await w.weir.key('drained', '--concurrency', '1');
		const first = held(w, key, 'drain');
		await w.provider.held(1);
		const second = w.ask({ key });
		await waits(w, 1);
		w.weir.signal('SIGTERM');
		await until(() => w.weir.stderr.includes('draining'), 'the worker drains');
		await w.provider.release('drain');
		assert.equal((await first).status, 200);
		assert.equal((await second).status, 200);
		assert.equal(await w.weir.exited, 0);
	}));

	test('requests of other limits are not held up', () => within({ workers: 1, settings: PATIENT }, async (w) => {
		const busy = await w.weir.key('busy', '--concurrency', '1'), free = await w.weir.key('free', '--concurrency', '1', '--budget', '10');
		const first = held(w, busy, 'busy');
		await w.provider.held(1);
		const rest = [1, 2, 3].map(() => w.ask({ key: busy }));
		await waits(w, 3);
		for (let i = 0; i < 5; i++) {
			const answer = await w.ask({ key: free });
			assert.equal(answer.status, 200);
			assert.ok(!(await w.weir.record(answer.headers.get('x-weir-request-id'))).flags.includes('waited'));
		}
		await w.provider.release('busy');
		for (const answer of [await first, ...await Promise.all(rest)])
			assert.equal(answer.status, 200);
	}));

	test('a worker that dies while requests wait: nothing is held, the queue is empty', () => within({ workers: 1, settings: PATIENT }, async (w) => {
		const key = await w.weir.key('mortal', '--concurrency', '1', '--token-budget', '100000');
		const client = await leaving(w, key, { body: messageBody({ stream: true, script: { hold: { after_events: 2, gate: 'never' }, usage: { input_tokens: 700 } } }) });
		await w.provider.held(1);
		const other = await leaving(w, key);
		await waits(w, 1);
		process.kill(w.weir.children().find((pid) => w.weir.role(pid) === 'worker'), 'SIGKILL');
		for (const c of [client, other])
			await until(() => c.ended || c.error, 'the connection is broken');
		await waits(w, 0);
		const [record] = await w.weir.records(1);
		assert.equal(record.outcome, 'worker_died');
		assert.equal(record.tokens.input, 700);
		assert.equal((await w.ask({ key })).status, 200, 'nobody is in flight any more');
		client.close();
		other.close();
	}));
});

describe('a provider that counts badly', () => {
	const budget = async (w, slug) => w.weir.key(slug, '--budget', '0.6');

	test('an error: the bound stands, and it is not asked again at once', () => within({ workers: 1 }, async (w) => {
		const key = await budget(w, 'erring');
		await counting(w, { error: 'overloaded' });
		for (let i = 0; i < 3; i++)
			refused(await w.ask({ key, body: long() }), 429, 'billing_error');
		assert.equal(await counts(w), 1);
		assert.match(w.weir.stderr, /prompts are not counted for 10 s/);
		assert.equal((await w.ask({ key })).status, 200);
	}));

	test('nonsense is not believed', () => within({ workers: 1 }, async (w) => {
		const key = await budget(w, 'nonsense');
		await counting(w, { gzip: true });
		refused(await w.ask({ key, body: long() }), 429, 'billing_error');
		assert.ok(!(await w.weir.records(1))[0].flags.includes('counted'));
	}));

	test('silence: after count_ms the bound stands', () => within({ workers: 1, settings: { budgets: { count_ms: 300 } } }, async (w) => {
		const key = await budget(w, 'silent');
		await counting(w, { fault: { kind: 'stall_before_head' } });
		const begin = performance.now();
		refused(await w.ask({ key, body: long() }), 429, 'billing_error');
		assert.ok(performance.now() - begin < 60000, 'the provider stays silent for longer');
		await waits(w, 0);
	}));

	test('a client that leaves meanwhile: the provider is left too', () => within({ workers: 1, settings: { budgets: { count_ms: 60000 } } }, async (w) => {
		const key = await budget(w, 'impatient');
		await counting(w, { fault: { kind: 'stall_before_head' } });
		const client = await leaving(w, key, { body: long() });
		await until(async () => (await w.provider.stats()).in_flight === 1, 'the provider is asked');
		client.close();
		await until(async () => (await w.provider.stats()).open === 0, 'the connection to the provider is closed');
		const [record] = await w.weir.records(1);
		assert.equal(record.outcome, 'client_gone');
		assert.equal(record.cost_nusd, 0);
		await counting(w, { delay_head_ms: 1 });
		assert.equal((await w.ask({ key, body: long() })).status, 200, 'it can still count');
	}));

	test('count_ms 0: nobody is asked', () => within({ workers: 1, settings: { budgets: { count_ms: 0 } } }, async (w) => {
		const key = await budget(w, 'unasked');
		refused(await w.ask({ key, body: long() }), 429, 'billing_error');
		assert.equal(await counts(w), 0);
	}));

	test('a body with a member that weir does not know is not counted: it may belong to the prompt', () => within({ workers: 1 }, async (w) => {
		const key = await budget(w, 'unknown');
		const body = JSON.stringify({ ...JSON.parse(long()), attachments: [] });
		refused(await w.ask({ key, body }), 429, 'billing_error');
		assert.equal(await counts(w), 0);
	}));
});

test('more limits than there is room for in a request: an error, counted and logged', () => within({
	settings: { policies: Array.from({ length: 25 }, (_, i) => ({ id: `p${i}`, conditions: [], type: 'requests', unit: 'rpd', value: 1000 })) },
}, async (w) => {
	const key = await w.weir.key('many');
	refused(await w.ask({ key }), 500, 'api_error');
	refused(await w.ask({ key }), 500, 'api_error');
	assert.equal((await w.weir.metrics()).sum('weir_refused_requests_total', { reason: 'limits' }), 2);
	assert.match(w.weir.stderr, /more than 24 limits apply/);
}));
