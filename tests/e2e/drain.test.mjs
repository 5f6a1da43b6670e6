// SIGTERM: streams finish, nothing new begins, everything is stored.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { test } from 'node:test';

import { sha256 } from '../fake/memory.mjs';
import { withoutPings } from './client.mjs';
import { World, messageRequest, until } from './harness.mjs';

const STREAMS = 100;

function refusedConnection(port) {
	return new Promise((resolve) => {
		const socket = net.connect({ port, host: '127.0.0.1' });
		socket.once('connect', () => { socket.destroy(); resolve(false); });
		socket.once('error', (e) => resolve(e.code === 'ECONNREFUSED'));
	});
}

test('open streams finish, idle connections close, new ones are refused, the exit is clean', async () => {
	const world = await World.open({ tls: true });
	try {
		const key = await world.weir.key('drain');
		const idle = await world.open();
		assert.equal((await idle.exchange(messageRequest({ key }))).status, 200);
		const clients = await Promise.all(Array.from({ length: STREAMS }, (_, i) => world.open({ tls: i % 5 === 0 })));
		const streams = clients.map((c) => c.exchange(messageRequest({ key, stream: true, script: { events: 10, hold: { after_events: 5, gate: 'drain' } } })));
		await world.provider.held(STREAMS);
		const port = world.weir.port;
		world.weir.signal('SIGTERM');

		await until(() => idle.ended, 'the idle connection is closed');
		await until(() => refusedConnection(port), 'new connections are refused');
		assert.equal((await world.provider.stats()).held, STREAMS, 'the streams are still open');
		await world.provider.release('drain');
		const answers = await Promise.all(streams);
		const status = await world.weir.stop();
		assert.equal(status, 0);
		const sent = new Map((await world.provider.requests()).map((r) => [r.id, r.sent_sha256]));
		for (const answer of answers)
			assert.equal(sha256(withoutPings(answer.body)), sent.get(answer.headers.get('request-id')));
		const records = await world.weir.records(STREAMS + 1);
		assert.ok(records.every((r) => r.outcome === 'ok'));
		assert.equal(existsSync(path.join(world.weir.settings.run_dir, 'weir.json')), false, 'weir.json is gone');
	} finally {
		await world.close();
	}
});

test('a stream that outlives drain_ms is cut, accounted for, and weir ends', async () => {
	const world = await World.open({ settings: { limits: { drain_ms: 1500 } } });
	try {
		const key = await world.weir.key('drain');
		const client = await world.open();
		const stream = client.exchange(messageRequest({ key, stream: true, script: { events: 10, hold: { after_events: 5, gate: 'never' }, usage: { input_tokens: 800 } } }), { mayBreak: true });
		await world.provider.held(1);
		const began = Date.now();
		assert.equal(await world.weir.stop(), 0);
		assert.ok(Date.now() - began >= 1400, `${Date.now() - began} ms`);
		const answer = await stream;
		assert.ok(!answer.body.toString().includes('message_stop'));
		const [record] = await world.weir.records(1);
		assert.equal(record.tokens.input, 800);
		assert.ok(record.cost_nusd > 0);
	} finally {
		await world.close();
	}
});

test('records of a previous run are all there after the next start', async () => {
	const world = await World.open();
	try {
		const key = await world.weir.key('again');
		const ids = [];
		for (let run = 0; run < 3; run++) {
			for (let i = 0; i < 5; i++)
				ids.push((await world.ask({ key })).headers.get('x-weir-request-id'));
			assert.equal(await world.weir.stop(), 0);
			if (run < 2)
				await world.weir.start();
		}
		const records = await world.weir.records(15);
		assert.deepEqual(records.map((r) => r.request_id).sort(), ids.sort());
	} finally {
		await world.close();
	}
});

test('kill -9 of every process at once loses no finished request', async () => {
	const world = await World.open();
	try {
		const key = await world.weir.key('power', '--budget', '10');
		const ids = [];
		for (let run = 0; run < 3; run++) {
			for (let i = 0; i < 20; i++)
				ids.push((await world.ask({ key, stream: i % 2 === 0 })).headers.get('x-weir-request-id'));
			world.weir.kill();
			await until(() => world.weir.exit !== undefined, 'the master is dead');
			await world.weir.start();
		}
		const records = await world.weir.records(60);
		assert.deepEqual(records.map((r) => r.request_id).sort(), ids.sort());
		await world.weir.spends(key, records.reduce((n, r) => n + BigInt(r.cost_nusd), 0n));
		await until(async () => (await world.weir.metrics()).sum('weir_budget_held_dollars') === 0, 'nothing is held');
	} finally {
		await world.close();
	}
});
