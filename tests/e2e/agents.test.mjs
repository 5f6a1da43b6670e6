// A coding agent asks for 128,000 output tokens and uses a few hundred, several
// at a time. A worst-case hold would refuse people who have money left; no hold
// would overspend. Five agents of one user, the dearest model, a $5 daily
// budget, $0.02 a request in truth:
//
//	- nobody is refused while what is left pays five requests at the floor
//	- the budget is never passed, not by a nano-dollar
//	- how many were clamped, how many refused, and what had been spent at the
//	  first refusal is printed

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';

import { World, figures, messageBody, messageRequest, until } from './harness.mjs';

const AGENTS = 5, LIMIT = 5_000_000_000n, COST = 20_000_000n;
const REQUESTS_MAX = 1000;	/* an agent; $5 pay for 250 in all */

/** The model whose output costs most today. */
function dearest() {
	const { models } = JSON.parse(readFileSync(new URL('../../deploy/prices.json', import.meta.url), 'utf8'));
	const today = new Date().toISOString().slice(0, 10);
	const rows = models.flatMap((m) => m.prices.filter((p) => p.valid_from <= today && (!p.valid_to || p.valid_to > today))
		.map((p) => ({ model: m.model, input: BigInt(p.input), output: BigInt(p.output) })));
	return rows.reduce((a, b) => (b.output > a.output ? b : a));
}

let world;
before(async () => { world = await World.open({ workers: 4 }); });
after(() => world.close());

test('five agents with 128,000 tokens each on a $5 budget: no refusal by a guess, no overshoot', async () => {
	const row = dearest();
	/* $0.02 in pico-dollars, by 200 input tokens and the rest as output. */
	const input = 200n, output = (COST * 1000n - input * row.input) / row.output;
	const key = await world.weir.key('agents', '--budget', '5', '--budget-period', 'daily', '--metadata', '{"_user":"ada"}');
	const script = { events: 3, delay_ms: 2, usage: { input_tokens: Number(input), output_tokens: Number(output) } };
	const body = messageBody({ model: row.model, max_tokens: 128000, stream: true, script });
	const answers = [];

	await Promise.all(Array.from({ length: AGENTS }, async () => {
		const client = await world.open();
		for (let i = 0; i < REQUESTS_MAX; i++) {
			const answer = await client.exchange(messageRequest({ key, body }));
			answers.push({ id: answer.headers.get('x-weir-request-id'), status: answer.status, lowered: answer.headers.get('x-weir-max-tokens'),
				by: answer.headers.get('x-weir-clamped-by'), error: answer.status === 200 ? null : JSON.parse(answer.body).error });
			if (answers.at(-1).error?.type === 'billing_error')
				break;
			if (answer.status !== 200)	/* what is left is reserved: as a client that tries again */
				await new Promise((resolve) => setTimeout(resolve, 20));
		}
		client.close();
	}));

	const records = await world.weir.records(answers.length, `key_id=${key.id}`);
	const sum = records.reduce((n, r) => n + BigInt(r.cost_nusd), 0n);
	await world.weir.spends(key, sum);
	assert.ok(sum <= LIMIT, `${sum} of ${LIMIT}`);

	const served = records.filter((r) => r.status === 200), clamped = served.filter((r) => r.flags.includes('clamped'));
	const refusedOnes = records.filter((r) => r.status !== 200);
	assert.equal(answers.filter((a) => a.error?.type === 'billing_error').length, AGENTS, 'each agent goes on until the money is gone');
	for (const answer of answers.filter((a) => a.error))
		assert.ok(['billing_error', 'rate_limit_error'].includes(answer.error.type), answer.error.message);
	for (const record of clamped) {
		assert.equal(record.asked_tokens, 128000);
		assert.ok(record.granted_tokens >= 4096 && record.granted_tokens < 128000, `${record.granted_tokens}`);
	}
	const lowered = answers.filter((a) => a.lowered !== undefined && a.lowered !== null);
	assert.equal(lowered.length, clamped.length, 'a header says so, each time');
	assert.ok(lowered.every((a) => a.by === 'key daily budget'), lowered[0]?.by);

	/* What the floor costs on this model, from a request that was at it. */
	const floor = served.filter((r) => r.granted_tokens === 4096).map((r) => BigInt(r.held_nusd)).reduce((a, b) => (b > a ? b : a), 0n);
	assert.ok(floor > 0n, 'the last requests were at the floor');
	const first = refusedOnes.map((r) => r.time).sort()[0];
	const spentThen = records.filter((r) => r.time < first).reduce((n, r) => n + BigInt(r.cost_nusd), 0n);
	figures('agents', { answered: served.length, clamped: clamped.length, refused: refusedOnes.length, spent_at_first_refusal_usd: Number(spentThen) / 1e9,
		spent_usd: Number(sum) / 1e9, floor_usd: Number(floor) / 1e9, limit_usd: Number(LIMIT) / 1e9 });
	assert.ok(LIMIT - spentThen < BigInt(AGENTS) * floor, `refused with $${Number(LIMIT - spentThen) / 1e9} left, five floors are $${Number(5n * floor) / 1e9}`);
	const metrics = await until(async () => {
		const now = await world.weir.metrics();
		return now.sum('weir_requests_in_flight') === 0 && now;
	}, 'nothing is in flight');
	assert.equal(metrics.sum('weir_budget_held_dollars'), 0);
	assert.equal(metrics.sum('weir_clamped_total'), clamped.length);
});
