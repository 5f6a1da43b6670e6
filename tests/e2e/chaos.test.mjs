// kill -9, again and again, under load: of a random worker every 200 ms, of the
// keeper and the admin process once a second. Clients see broken or refused
// connections, never a wrong answer; afterwards every finished request has
// exactly one record, nothing is held, and ledger = records.
//
//	WEIR_CHAOS_SECONDS	how long (20)
//	WEIR_CHAOS_SEED		which random numbers (printed)

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { sha256 } from '../fake/memory.mjs';
import { World, messageBody, messageRequest, until } from './harness.mjs';
import { random } from './random.mjs';

const SECONDS = Number(process.env.WEIR_CHAOS_SECONDS ?? 20);
const SEED = Number(process.env.WEIR_CHAOS_SEED ?? Math.floor(Math.random() * 1e9));
const CLIENTS = 32;

/** One client: requests as long as `going` says so; what it saw of each. */
async function load(world, key, number, going, seen) {
	const scripts = [{ events: 3 }, { events: 20, delay_ms: 3 }, { events: 5, tool: true, thinking: 2 }, { error: 'overloaded' }, { events: 40, delay_ms: 5 }];
	let client = null;
	for (let i = 0; going(); i++) {
		const stream = (number + i) % 4 !== 0;
		try {
			client ??= await world.open();
			await client.send(messageRequest({ key, body: messageBody({ stream, script: scripts[(number * 7 + i) % scripts.length] }) }));
			const answer = await client.response({ mayBreak: true });
			if (!answer || answer.cut) {
				seen.broken++;
				client.close();
				client = null;
				continue;
			}
			seen.finished.push({ id: answer.headers.get('x-weir-request-id'), provider: answer.headers.get('request-id'), status: answer.status, hash: sha256(answer.body) });
		} catch (error) {
			if (/not within|no (head|body|line) within/.test(error.message))
				throw error;
			seen.refused++;
			client?.close();
			client = null;
			await new Promise((resolve) => setTimeout(resolve, 20));	/* as a client that tries again */
		}
	}
	client?.close();
}

/** Kills one process of that kind; true if there was one. */
function killOne(world, kind, pick) {
	const found = world.weir.children().filter((pid) => world.weir.role(pid) === kind);
	if (found.length === 0)
		return false;
	try {
		process.kill(found[Math.floor(pick() * found.length)], 'SIGKILL');
	} catch (error) {
		if (error.code !== 'ESRCH')
			throw error;
		return false;
	}
	return true;
}

test(`processes die for ${SECONDS} s under load, and nothing is lost or counted twice (seed ${SEED})`, async () => {
	const world = await World.open({ workers: 4 });
	try {
		const key = await world.weir.key('chaos', '--budget', '100000', '--rpm', '1000000');
		const seen = { finished: [], broken: 0, refused: 0 }, pick = random(SEED), killed = { worker: 0, keeper: 0, admin: 0 };
		const end = Date.now() + SECONDS * 1000;
		let turn = 0;
		const killer = setInterval(() => {
			killed.worker += killOne(world, 'worker', pick);
			if (turn % 5 === 2)
				killed.keeper += killOne(world, 'keeper', pick);
			if (turn % 5 === 4)
				killed.admin += killOne(world, 'admin', pick);
			turn++;
		}, 200);
		try {
			await Promise.all(Array.from({ length: CLIENTS }, (_, i) => load(world, key, i, () => Date.now() < end, seen)));
		} finally {
			clearInterval(killer);
		}
		console.log(`# ${seen.finished.length} finished, ${seen.broken} broken, ${seen.refused} refused; killed ${JSON.stringify(killed)}`);
		assert.ok(killed.worker >= SECONDS && killed.keeper >= SECONDS / 2 && killed.admin >= SECONDS / 2, JSON.stringify(killed));
		assert.ok(seen.finished.length > SECONDS * 20, `${seen.finished.length} requests`);

		await until(async () => (await world.provider.stats()).in_flight === 0, 'the provider is idle');
		const metrics = await until(async () => {
			const now = await world.weir.metrics().catch(() => null);
			return now && now.sum('weir_requests_in_flight') === 0 && now.sum('weir_budget_held_dollars') === 0 && now;
		}, 'nothing is in flight, nothing is held', undefined, 100);
		assert.ok(metrics.sum('weir_process_restarts_total') >= killed.worker, 'restarts are counted');
		await check(world, key, seen);
	} finally {
		await world.close();
	}
});

test('the master and all its children die at once under load, three times', async () => {
	const world = await World.open({ workers: 2 });
	try {
		const key = await world.weir.key('blackout', '--budget', '100000', '--budget-period', 'daily');
		const seen = { finished: [], broken: 0, refused: 0 };
		for (let round = 0; round < 3; round++) {
			const before = seen.finished.length;
			let going = true;
			const clients = Promise.all(Array.from({ length: 16 }, (_, i) => load(world, key, i, () => going, seen)));
			await until(() => seen.finished.length > before + 20, 'requests are answered');
			world.weir.kill();
			going = false;
			await clients;
			await until(() => world.weir.exit !== undefined, 'the master is dead');
			await world.weir.start();
		}
		console.log(`# ${seen.finished.length} finished, ${seen.broken} broken, ${seen.refused} refused`);
		await until(async () => {
			const metrics = await world.weir.metrics();
			return metrics.sum('weir_requests_in_flight') === 0 && metrics.sum('weir_budget_held_dollars') === 0;
		}, 'nothing is in flight, nothing is held');
		await check(world, key, seen);
	} finally {
		await world.close();
	}
});

async function check(world, key, seen) {
	const sent = new Map((await world.provider.requests(1e9)).map((r) => [r.id, r]));
	for (const f of seen.finished)
		if (f.status === 200 || f.status === 529)
			assert.equal(f.hash, sent.get(f.provider)?.sent_sha256, `a wrong answer: ${JSON.stringify(f)}`);
		else
			assert.ok([502, 503].includes(f.status), `${f.status}`);

	const ids = new Set(seen.finished.map((f) => f.id));
	const records = await until(async () => {
		const found = await world.weir.logs(`key_id=${key.id}`);
		const stored = new Set(found.map((r) => r.request_id));
		return [...ids].every((id) => stored.has(id)) && found;
	}, 'every finished request has a record', undefined, 200);
	const count = new Map();
	for (const record of records)
		count.set(record.request_id, (count.get(record.request_id) ?? 0) + 1);
	assert.deepEqual([...count].filter(([, n]) => n !== 1), [], 'a request was recorded twice');

	const outcomes = new Map(records.map((r) => [r.request_id, r]));
	for (const f of seen.finished)
		if (f.status === 200 && outcomes.get(f.id).outcome === 'ok')
			assert.equal(String(outcomes.get(f.id).cost_nusd), sent.get(f.provider).cost_nusd, 'a finished request costs what it was billed');
	const sum = records.reduce((n, r) => n + BigInt(r.cost_nusd), 0n);
	await world.weir.spends(key, sum);	/* ledger = records */
	assert.equal(await world.weir.stop(), 0);
	const after = await world.weir.logs(`key_id=${key.id}`);
	assert.equal(after.length, records.length);
}
