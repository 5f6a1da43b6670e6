// Limits are exact, whatever the concurrency: the bucket's number of requests,
// never a cent over the budget, and one answer to "who spent what".

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { World, messageBody, messageRequest, refused, until } from './harness.mjs';

const CLIENTS = 64;
let world;

before(async () => { world = await World.open({ workers: 4 }); });
after(() => world.close());

/**
 * 64 clients on connections of their own repeat the request until `enough` says
 * so of an answer. Returns all answers with the times around them.
 */
async function storm(key, script, enough, { stream = true, max_tokens = 1024 } = {}) {
	const clients = await Promise.all(Array.from({ length: CLIENTS }, () => world.open()));
	const answers = [];
	await Promise.all(clients.map(async (client) => {
		for (let i = 0; i < 2000; i++) {
			const request = messageRequest({ key, body: messageBody({ script, stream, max_tokens }) });
			const begin = performance.now();
			const answer = await client.exchange(request);
			answers.push({ status: answer.status, begin, end: performance.now(), body: answer.body,
				type: answer.status === 200 ? null : JSON.parse(answer.body).error.type, id: answer.headers.get('x-weir-request-id') });
			if (enough(answers.at(-1), answers))
				break;
		}
	}));
	clients.forEach((c) => c.close());
	return answers;
}

/** bill = sum of records = what is spent of the budget; nothing is held. */
async function reconcile(key, answers, limitNusd) {
	const records = await world.weir.records(answers.length, `key_id=${key.id}`);
	const ids = new Set(records.map((r) => r.request_id));
	assert.equal(ids.size, answers.length);
	for (const answer of answers)
		assert.ok(ids.has(answer.id), `no record of ${answer.id}`);
	const sum = records.reduce((n, r) => n + BigInt(r.cost_nusd), 0n);
	const billed = new Map((await world.provider.bill()).requests.map((r) => [r.id, r]));
	let bill = 0n;
	for (const record of records.filter((r) => r.provider_request_id))
		bill += BigInt(billed.get(record.provider_request_id).cost_nusd);
	assert.equal(sum, bill, 'sum of records = provider bill');
	if (limitNusd !== undefined) {
		assert.ok(sum <= limitNusd, `${sum} of ${limitNusd}`);
		await world.weir.spends(key, sum);
	}
	const metrics = await world.weir.metrics();
	assert.equal(metrics.sum('weir_budget_held_dollars'), 0);
	assert.equal(metrics.sum('weir_requests_in_flight'), 0);
	return { records, sum };
}

test('64 clients, 100 requests a minute, 4 workers: exactly the bucket\'s number', async () => {
	const key = await world.weir.key('bucket', '--rpm', '100');
	const closing = performance.now() + 2500;
	/* Each client's last request begins after that time: they leave nothing in the bucket that is older. */
	const answers = await storm(key, { events: 0 }, (answer, all) => answer.begin > closing && all.length > 300);
	const admitted = answers.filter((a) => a.status === 200);
	const first = Math.min(...admitted.map((a) => a.begin)), firstEnd = Math.min(...admitted.map((a) => a.end));
	const last = Math.max(...answers.map((a) => a.end));
	const most = 100 + Math.floor((last - first) / 600), least = 100 + Math.floor((closing - firstEnd) / 600);
	assert.ok(admitted.length <= most && admitted.length >= least, `${admitted.length} admitted, between ${least} and ${most} expected`);
	assert.ok(answers.every((a) => a.status === 200 || (a.status === 429 && a.type === 'rate_limit_error')));
	const { records } = await reconcile(key, answers);
	assert.equal(records.filter((r) => r.outcome === 'ok').length, admitted.length);
});

test('64 clients, $1.00, 4 workers: never over it, and spent to the last request that fits', async () => {
	const key = await world.weir.key('dollar', '--budget', '1.00', '--budget-period', 'monthly');
	const script = { events: 3, usage: { input_tokens: 1500, output_tokens: 700 }, delay_ms: 2 };
	const answers = await storm(key, script, (a) => a.type === 'billing_error');
	const { records, sum } = await reconcile(key, answers, 1000000000n);
	const each = 1500n * 2000n + 700n * 10000n;
	assert.equal(sum % each, 0n);
	assert.ok(sum > 900000000n, `only ${sum} spent`);
	assert.ok(records.every((r) => ['ok', 'refused'].includes(r.outcome)), 'nothing else happened');
	for (const a of answers.filter((x) => x.status !== 200))
		assert.ok(a.status === 429 && ['billing_error', 'rate_limit_error'].includes(a.type), `${a.status} ${a.type}`);
	refused(await world.ask({ key }), 429, 'billing_error');
});

test('both at once, on one key: all or nothing', async () => {
	const key = await world.weir.key('both', '--rpm', '100', '--budget', '1.00', '--budget-period', 'daily');
	const start = performance.now();
	const script = { events: 2, usage: { input_tokens: 900, output_tokens: 1000 } };
	const answers = await storm(key, script, (a) => a.type === 'billing_error' || performance.now() - start > 30000);
	const { sum } = await reconcile(key, answers, 1000000000n);
	const admitted = answers.filter((a) => a.status === 200).length;
	assert.equal(sum, BigInt(admitted) * (900n * 2000n + 1000n * 10000n));
	assert.ok(admitted <= 100 + Math.floor((Math.max(...answers.map((a) => a.end)) - start) / 600));
	assert.ok(admitted >= 80, `${admitted}: a refusal by the budget must not use the bucket`);
});

test('spend is never over the budget at any moment, even while streams run and break', async () => {
	const key = await world.weir.key('strict', '--budget', '0.20');
	const scripts = [{ events: 5, usage: { output_tokens: 600 } }, { events: 5, fault: { kind: 'reset', after_events: 4 } }, { error: 'overloaded' },
		{ events: 5, delay_ms: 1 }];
	const answers = [];
	await Promise.all(Array.from({ length: CLIENTS }, async (_, i) => {
		for (let n = 0; n < 20; n++) {
			const answer = await world.ask({ key, stream: true, script: scripts[(i + n) % scripts.length], mayBreak: true });
			answers.push(answer?.status);
			if (answer?.status === 429 && JSON.parse(answer.body).error.type === 'billing_error')
				break;
		}
	}));
	const records = await until(async () => {
		const found = await world.weir.logs(`key_id=${key.id}`);
		return found.length === answers.length && found;
	}, 'a record of each');
	const sum = records.reduce((n, r) => n + r.cost_nusd, 0);
	assert.ok(sum <= 200000000, `${sum}`);
	await world.weir.spends(key, BigInt(sum));
	assert.equal((await world.weir.metrics()).sum('weir_budget_held_dollars'), 0);
});

test('who has the whole answer finds its reservation gone, at whatever worker', async () => {
	/* The budget pays all of them, but can hold only one at a time. */
	const usage = { input_tokens: 10, output_tokens: 10 };
	const probe = await world.weir.key('hold-probe', '--budget', '1000');
	const asked = await world.ask({ key: probe, script: { usage } });
	const { held_nusd: hold, cost_nusd: cost } = await world.weir.record(asked.headers.get('x-weir-request-id'));
	const rounds = Math.min(150, Math.floor(hold / cost) - 1);
	assert.ok(rounds > 20, `${hold} held, ${cost} spent`);
	const key = await world.weir.key('one-at-a-time', '--budget', ((hold + rounds * cost) / 1e9).toFixed(9));
	for (let i = 0; i < rounds; i++) {
		const answer = await world.ask({ key, stream: i % 2 === 1, script: { usage, events: 3 } });
		assert.equal(answer.status, 200, `request ${i}: ${answer.body}`);
	}
	for (const record of await world.weir.records(rounds, `key_id=${key.id}`))
		assert.ok(!record.flags.includes('waited'), 'nor does it have to wait for that');
});

test('a request that can never fit is told so, and takes nothing', async () => {
	const key = await world.weir.key('small', '--budget', '0.02');
	const message = refused(await world.ask({ key, body: messageBody({ max_tokens: 100000 }) }), 429, 'billing_error');
	assert.match(message, /max_tokens/);
	assert.equal((await world.ask({ key, body: messageBody({ max_tokens: 100 }) })).status, 200);
});

test('a worker without room for more requests in flight says so, and still records it', async () => {
	const narrow = await World.open({ workers: 1, settings: { ledger: { inflight: 16 } } });
	try {
		const key = await narrow.weir.key('narrow');
		const held = Array.from({ length: 16 }, () => narrow.ask({ key, stream: true, script: { hold: { after_events: 2, gate: 'room' } } }));
		await narrow.provider.held(16);
		const answer = await narrow.ask({ key });
		refused(answer, 529, 'overloaded_error');
		await narrow.provider.release('room');
		for (const h of await Promise.all(held))
			assert.equal(h.status, 200);
		assert.equal((await narrow.ask({ key })).status, 200, 'there is room again');
		const records = await narrow.weir.records(18);
		assert.equal(records.filter((r) => r.status === 529 && r.outcome === 'refused').length, 1);
	} finally {
		await narrow.close();
	}
});

test('what was spent is still spent after a restart, and the budget goes on from there', async () => {
	const other = await World.open();
	try {
		const key = await other.weir.key('lasting', '--budget', '0.05', '--budget-period', 'monthly');
		const script = { usage: { input_tokens: 1000, output_tokens: 1000 } };
		let spent = 0n;
		for (let i = 0; i < 2; i++) {
			for (let n = 0; n < 2; n++) {
				const answer = await other.ask({ key, script });
				assert.equal(answer.status, 200, answer.body.toString());
				spent += BigInt(JSON.parse(answer.body).usage.output_tokens) * 10000n + 1000n * 2000n;
			}
			assert.equal(await other.weir.stop(), 0);
			await other.weir.start();
			assert.equal(await other.weir.spent(key), spent, 'all is stored when weir has stopped');
		}
		refused(await other.ask({ key }), 429, 'billing_error');
		assert.equal((await other.weir.records(5)).length, 5);
	} finally {
		await other.close();
	}
});
