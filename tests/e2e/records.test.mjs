// Nothing that has ended is missing from the log, whatever the keeper does.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Client, World, messageRequest, parallel, until } from './harness.mjs';

test('while the keeper stands still full rings slow the intake, and no record is dropped', async () => {
	const world = await World.open({ workers: 2, settings: { ledger: { ring_bytes: 65536 } } });
	try {
		const key = await world.weir.key('slow', '--budget', '1000');
		const keeper = await world.weir.child('keeper');
		process.kill(keeper, 'SIGSTOP');
		const total = 600;
		let done = 0;
		const asked = parallel(total, 64, async (i) => {
			const answer = await world.ask({ key, stream: i % 2 === 0, script: { events: 1 }, headers: [['x-portkey-metadata', JSON.stringify({ n: 'x'.repeat(100) })]], });
			done++;
			return answer;
		});
		await until(async () => (await world.weir.metrics()).samples.some((s) => s.name === 'weir_ring_fill_ratio' && s.value > 0.8), 'a ring is nearly full', undefined, 50);
		let seen = -1;
		await until(() => { const still = done === seen; seen = done; return still; }, 'the intake has stopped', undefined, 500);
		assert.ok(done < total, `${done} of ${total} were served without a keeper`);
		assert.ok((await world.weir.metrics()).sum('weir_requests_in_flight') > 0, 'the admin process answers meanwhile');
		process.kill(keeper, 'SIGCONT');
		const ids = (await asked).map((answer) => {
			assert.equal(answer.status, 200, answer.body.toString());
			return answer.headers.get('x-weir-request-id');
		});
		const records = await world.weir.records(total);
		assert.deepEqual(records.map((r) => r.request_id).sort(), ids.sort());
		await world.weir.spends(key, records.reduce((n, r) => n + BigInt(r.cost_nusd), 0n));
	} finally {
		await world.close();
	}
});

test('requests of a worker that dies are settled by the master: what was metered, and at least the input', async () => {
	const world = await World.open({ workers: 1 });
	try {
		const key = await world.weir.key('orphan', '--budget', '10');
		const begun = { events: 20, hold: { after_events: 12, gate: 'none' }, usage: { input_tokens: 5000, output_tokens: 400 } };
		const silent = { fault: { kind: 'stall_before_head' } };
		const clients = [];
		for (const script of [begun, begun, silent]) {
			const client = await Client.open({ port: world.weir.port });
			await client.send(messageRequest({ key, stream: true, script }));
			clients.push(client);
		}
		await world.provider.held(2);
		await until(async () => (await world.provider.stats()).in_flight === 3, 'the provider has all three');
		const heads = [await clients[0].head(), await clients[1].head()];
		assert.ok((await world.weir.metrics()).sum('weir_budget_held_dollars') > 0);
		process.kill(await world.weir.child('worker'), 'SIGKILL');

		for (const client of clients)
			await until(() => client.ended || client.error, 'the connection is broken');
		const records = await world.weir.records(3);
		assert.ok(records.every((r) => r.outcome === 'worker_died' && r.key_id === key.id && r.model === 'claude-sonnet-5-5'), JSON.stringify(records));
		for (const head of heads) {
			const record = records.find((r) => r.request_id === head.headers.get('x-weir-request-id'));
			assert.equal(record.tokens.input, 5000);
			assert.ok(record.cost_nusd >= 5000 * 2000, `${record.cost_nusd}`);
			assert.ok(record.flags.includes('partial'));
		}
		assert.ok(records.every((r) => r.cost_nusd > 0), 'the provider has read every prompt');
		await world.weir.spends(key, records.reduce((n, r) => n + BigInt(r.cost_nusd), 0n));
		await until(async () => (await world.weir.metrics()).sum('weir_budget_held_dollars') === 0, 'nothing is held');
		assert.equal((await world.ask({ key })).status, 200, 'its successor serves');
		clients.forEach((c) => c.close());
	} finally {
		await world.close();
	}
});

test('an admin process that stands still delays no request and no record', async () => {
	const world = await World.open();
	try {
		const key = await world.weir.key('k');
		const admin = await world.weir.child('admin');
		process.kill(admin, 'SIGSTOP');
		for (let i = 0; i < 20; i++)
			assert.equal((await world.ask({ key })).status, 200);
		await world.weir.records(20);
		process.kill(admin, 'SIGCONT');
		assert.equal((await world.weir.metrics()).sum('weir_requests_total', { route: 'messages' }), 20);
	} finally {
		await world.close();
	}
});

test('records are in the order of their ends, with times that fit', async () => {
	const world = await World.open({ workers: 1 });
	try {
		const key = await world.weir.key('k');
		const begin = Date.now();
		for (let i = 0; i < 10; i++)
			await world.ask({ key, headers: [['x-portkey-metadata', `{"n":"${i}"}`]] });
		const records = await world.weir.records(10);
		assert.deepEqual(records.map((r) => r.metadata.n), Array.from({ length: 10 }, (_, i) => String(i)));
		for (const record of records) {
			const time = Date.parse(record.time);
			assert.ok(time >= begin - 1000 && time <= Date.now() + 1000, record.time);
			assert.match(record.id, /^\d+$/);
		}
		assert.ok(records.every((r, i) => i === 0 || BigInt(r.id) > BigInt(records[i - 1].id)));
	} finally {
		await world.close();
	}
});
