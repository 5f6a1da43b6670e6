// A provider that lies ends its one request, and only that.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';

import { sha256 } from '../fake/memory.mjs';
import { parseEvents } from './client.mjs';
import { World, messageRequest, refused, until } from './harness.mjs';

let world, key;

before(async () => {
	world = await World.open({ settings: { limits: { stream_idle_ms: 15000, first_byte_ms: 15000 } } });
	key = await world.weir.key('lies');
});
after(() => world.close());

/** Resident kilobytes of the biggest worker. */
function workerMemory() {
	return Math.max(...world.weir.children().map((pid) => {
		const match = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
		return match ? Number(match[1]) : 0;
	}));
}

async function healthy() {
	const answer = await world.ask({ key, stream: true, script: { events: 5 } });
	assert.equal(answer.status, 200);
	assert.equal(sha256(answer.body), (await world.provider.last()).sent_sha256);
}

test('a head that cannot be trusted is a 502, whatever stands in it', async () => {
	for (const kind of ['two_lengths', 'length_and_chunked', 'bad_length', 'negative_length', 'obs_fold', 'bare_lf', 'nul_in_head', 'space_before_colon',
		'switching', 'long_header', 'garbage', 'endless_head', 'reset_in_head', 'close_in_head'])
		for (const stream of [false, true]) {
			const answer = await world.ask({ key, script: { fault: { kind } }, stream });
			refused(answer, 502, 'api_error');
			const record = await world.weir.record(answer.headers.get('request-id'));
			assert.equal(record.outcome, 'upstream_failed', kind);
			assert.equal(record.status, 502, kind);
		}
	await healthy();
});

test('a plain answer that breaks off does not look whole', async () => {
	for (const kind of ['reset', 'close', 'short_body']) {
		const answer = await world.ask({ key, script: { events: 2000, fault: { kind } }, mayBreak: true });
		assert.ok(answer === null || answer.cut || answer.status >= 500, kind);
	}
	for (const kind of ['bad_chunk', 'chunk_overrun', 'huge_chunk', 'reset', 'close']) {
		const answer = await world.ask({ key, script: { events: 2000, framing: 'chunked', fault: { kind } }, mayBreak: true });
		assert.ok(answer === null || answer.cut || answer.status >= 500, `${kind}, chunked`);
	}
	await healthy();
});

test('a stream whose framing lies ends in one error event', async () => {
	for (const kind of ['bad_chunk', 'chunk_overrun', 'huge_chunk']) {
		const answer = await world.ask({ key, stream: true, script: { events: 20, delay_ms: 1, fault: { kind, after_events: 8 } }, mayBreak: true });
		const events = parseEvents(answer.body);
		assert.equal(events.at(-1).event, 'error', kind);
		assert.equal(events.filter((e) => e.event === 'message_stop').length, 0);
	}
	await healthy();
});

test('bytes behind the end of an answer are never served to the next request', async () => {
	const client = await world.open();
	for (let i = 0; i < 20; i++) {
		const answer = await client.exchange(messageRequest({ key, script: { fault: { kind: 'long_body' } } }));
		assert.equal(answer.status, 200);
		const next = await client.exchange(messageRequest({ key, script: { events: 2 } }));
		assert.equal(next.status, 200);
		assert.ok(!next.body.includes('smuggled'), 'the rest of another answer');
		assert.equal(sha256(next.body), (await world.provider.last()).sent_sha256);
	}
	client.close();
});

test('a stream with invalid UTF-8 passes as it is, and is metered', async () => {
	const answer = await world.ask({ key, stream: true, script: { events: 5, fault: { kind: 'invalid_utf8' } } });
	const last = await world.provider.last();
	assert.equal(sha256(answer.body), last.sent_sha256);
	const record = await world.weir.record(answer.headers.get('x-weir-request-id'));
	assert.equal(record.cost_nusd, Number(last.cost_nusd));
});

test('gzip that was not asked for passes with its header and does not break the meter', async () => {
	for (const stream of [false, true]) {
		const answer = await world.ask({ key, stream, script: { gzip: true, usage: { input_tokens: 100, output_tokens: 50 } } });
		if (answer.status !== 200)
			continue;
		assert.equal(answer.headers.get('content-encoding'), 'gzip');
		assert.equal(sha256(answer.body), (await world.provider.last()).sent_sha256);
		const record = await world.weir.record(answer.headers.get('x-weir-request-id'));
		assert.ok(record.flags.includes('estimated') || record.flags.includes('partial'), JSON.stringify(record.flags));
		assert.ok(record.cost_nusd > 0, 'an answer that cannot be read is not free');
	}
	await healthy();
});

test('1xx answers are swallowed', async () => {
	const answer = await world.ask({ key, script: { interim: 103 } });
	assert.equal(answer.status, 200);
	assert.equal(answer.interim.length, 0);
});

test('an event line of 100 MB passes, and no worker keeps it', async () => {
	await healthy();
	const before = workerMemory();
	let most = 0;
	const watch = setInterval(() => { most = Math.max(most, workerMemory()); }, 50);
	const answer = await world.ask({ key, stream: true, script: { fault: { kind: 'huge_line', megabytes: 100 } }, mayBreak: true });
	clearInterval(watch);
	assert.equal(answer.status, 200);
	assert.ok(answer.body.length > 100 << 20 || answer.cut, `${answer.body.length} bytes, whole`);
	assert.ok(most - before < 40 << 10, `a worker grew by ${most - before} KiB`);
	await healthy();
});

test('a trickling provider is passed on byte by byte', async () => {
	const answer = await world.ask({ key, stream: true, script: { events: 1, text_bytes: 4, every: 40, gap_ms: 2 } });
	assert.equal(sha256(answer.body), (await world.provider.last()).sent_sha256);
});

test('a neighbour\'s stream is not disturbed by any of it', async () => {
	const slow = world.ask({ key, stream: true, script: { events: 60, delay_ms: 20 } });
	await until(async () => (await world.provider.stats()).in_flight > 0, 'the slow stream runs');
	const kinds = ['reset', 'bad_chunk', 'garbage', 'endless_head', 'two_lengths', 'huge_chunk', 'reset_before_head'];
	await Promise.all(kinds.map((kind) => world.ask({ key, stream: true, script: { fault: { kind } }, mayBreak: true })));
	const events = parseEvents((await slow).body);
	assert.equal(events.at(-1).event, 'message_stop');
	assert.equal(events.filter((e) => e.event === 'content_block_delta').length, 60);
});
