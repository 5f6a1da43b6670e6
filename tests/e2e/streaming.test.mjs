// Time in streams: nothing is held, silence is filled, ends are honest.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { sha256 } from '../fake/memory.mjs';
import { bodyState, parseEvents, pingsIn, withoutPings } from './client.mjs';
import { World, messageBody, messageRequest, refused, timely, until } from './harness.mjs';

const PING_MS = 250;
let world, key;

before(async () => {
	world = await World.open({ settings: { limits: { ping_ms: PING_MS, stream_idle_ms: 3000, first_byte_ms: 4000 } } });
	key = await world.weir.key('streams');
});
after(() => world.close());

const ask = (script, rest = {}) => world.ask({ key, script, stream: true, ...rest });
const record = (answer) => world.weir.record(answer.headers.get('x-weir-request-id'));

test('C25 every event leaves as it comes: none waits for the next', async () => {
	const client = await world.open();
	await timely(async () => {
		const answer = await client.exchange(messageRequest({ key, stream: true, script: { events: 12, delay_ms: 25 },
			headers: [['accept-encoding', 'gzip, br, zstd']] }));
		assert.equal(answer.headers.get('content-encoding'), undefined);
		assert.match(answer.headers.get('content-type'), /^text\/event-stream/);
		assert.equal(answer.framing, 'chunked');
		for (const part of answer.parts)
			assert.ok(part.toString().endsWith('\n\n'), 'a piece ends inside a frame');
		return parseEvents(answer.body).length === answer.parts.length;
	}, 'no two events come as one piece');
	client.close();
});

test('C25 the first byte is at most 50 ms behind the provider\'s', async () => {
	const client = await world.open();
	await timely(async () => {
		const begin = performance.now();
		await client.send(messageRequest({ key, stream: true, script: { events: 3, delay_ms: 1 } }));
		const head = await client.head(), state = bodyState(head, 'POST');
		await client.part(state);
		const waited = performance.now() - begin;
		while (await client.part(state) !== null);
		return waited < 50;
	}, 'a first byte within 50 ms', 40);
	client.close();
});

test('C27 a provider that falls silent: pings at the borders of frames, none after the end', async () => {
	const [answer, pings] = await timely(async () => {
		const begin = Date.now();
		const paused = await ask({ events: 4, pause: { after_events: 4, ms: 1400 } });
		const found = pingsIn(paused.body);
		assert.ok(found <= (Date.now() - begin) / PING_MS, `${found} pings in ${Date.now() - begin} ms`);
		return found >= 3 && [paused, found];
	}, 'three pings in 1.4 s');
	const last = await world.provider.last();
	assert.equal(sha256(withoutPings(answer.body)), last.sent_sha256);
	assert.ok(answer.body.toString().endsWith('data: {"type":"message_stop"}\n\n'));
	const metrics = await world.weir.metrics();
	assert.ok(metrics.samples.some((s) => /ping/.test(s.name) && s.value >= pings), 'pings are counted');
});

test('C27 no ping behind message_stop, however long the provider stays', async () => {
	const answer = await ask({ events: 2, pause: { after_events: 7, ms: 1000 } });
	assert.ok(answer.body.toString().endsWith('data: {"type":"message_stop"}\n\n'));
});

test('C27 silence in the middle of an event: the ping does not tear it', async () => {
	const whole = withoutPings((await ask({ events: 4 })).body);
	const middle = whole.indexOf('content_block_delta', whole.length / 2) + 9;
	const answer = await ask({ events: 4, cut: [middle], gap_ms: 900 });
	const last = await world.provider.last();
	assert.ok(pingsIn(answer.body) > 0);
	assert.equal(sha256(withoutPings(answer.body)), last.sent_sha256);
	for (const event of parseEvents(answer.body))
		assert.equal(event.json.type, event.event);
});

test('C28 silence before the head: 200 and a sign of life, then the answer', async () => {
	const answer = await timely(async () => {
		const late = await ask({ delay_head_ms: 1100, events: 3 });
		assert.equal(late.status, 200);
		return late.times[0] < late.times.at(-1) - 300 && late;
	}, 'something comes before the provider speaks');
	const last = await world.provider.last();
	assert.equal(sha256(withoutPings(answer.body)), last.sent_sha256, answer.body.toString());
	const entry = await record(answer);
	assert.equal(entry.outcome, 'ok');
	assert.equal(entry.cost_nusd, Number(last.cost_nusd));
});

test('C28 an error after the head was committed is an error event with the provider\'s words', async () => {
	const answer = await ask({ delay_head_ms: 1100, error: 'overloaded' });
	assert.equal(answer.status, 200);
	const [error] = parseEvents(withoutPings(answer.body));
	assert.equal(error.event, 'error');
	assert.equal(error.json.type, 'error');
	assert.equal(error.json.error.type, 'overloaded_error');
	assert.equal(error.json.error.message, 'Overloaded');
	assert.match(error.json.request_id, /^req_/);
	const entry = await record(answer);
	assert.equal(entry.outcome, 'provider_error');
	assert.equal(entry.cost_nusd, 0);
});

test('C28 a plain request is not committed early: the error keeps its status', async () => {
	const answer = await world.ask({ key, script: { delay_head_ms: 900, error: 'overloaded' } });
	assert.equal(answer.status, 529);
});

test('C30 the provider breaks off in the middle: one error event, no invented end, the part is billed', async () => {
	for (const kind of ['reset', 'close', 'bad_chunk'])
		for (const plus of [0, 30]) {
			const client = await world.open();
			const answer = await client.exchange(messageRequest({ key, stream: true, script: { events: 20, delay_ms: 2,
				usage: { input_tokens: 1000, output_tokens: 2000 }, fault: { kind, after_events: 10, plus } } }), { mayBreak: true });
			const events = parseEvents(withoutPings(answer.body));
			assert.equal(events.filter((e) => e.event === 'error').length, 1, answer.body.toString().slice(-300));
			assert.equal(events.at(-1).event, 'error');
			assert.equal(events.filter((e) => e.event === 'message_stop').length, 0);
			assert.equal(events.length, 11, 'the whole events came, and half of none');
			assert.ok(answer.cut, 'the body has no end: nobody can take it for whole');
			assert.equal((await client.drain()).length, 0);
			assert.ok(client.ended);
			const last = await world.provider.last();
			const entry = await record(answer);
			assert.equal(entry.outcome, 'upstream_failed', kind);
			assert.ok(entry.flags.includes('partial') && entry.flags.includes('estimated'), entry.flags.join());
			assert.equal(entry.tokens.input, 1000);
			assert.ok(entry.cost_nusd >= 1000 * 2000 && entry.cost_nusd <= Number(last.cost_nusd) * 3, `${entry.cost_nusd} for ${last.cost_nusd}`);
			client.close();
		}
});

test('C30 an error that came whole, ahead of all content, ends in order: its connection serves the next request', async () => {
	for (const script of [{ delay_head_ms: 1100, error: 'overloaded' }, { fault: { kind: 'stall_before_head' } }, { delay_head_ms: 1100, fault: { kind: 'reset_before_head' } }, { error_after: 0 }]) {
		const client = await world.open();
		const answer = await client.exchange(messageRequest({ key, stream: true, script }));	/* whose end is there, or this throws */
		assert.equal(answer.status, 200);
		assert.deepEqual([answer.framing, answer.headers.get('connection'), parseEvents(withoutPings(answer.body)).map((e) => e.event)], ['chunked', undefined, ['error']]);
		assert.equal(client.unread.length, 0);
		for (const stream of [true, false]) {
			const next = await client.exchange(messageRequest({ key, stream, script: { events: 3 } }));
			assert.equal(next.status, 200);
			assert.equal(withoutPings(next.body).toString(), (await world.provider.last()).sent.toString());
		}
		assert.ok(!client.ended);
		client.close();
	}
});

test('C30 an error event of the provider passes as it is and ends the record as its error', async () => {
	const answer = await ask({ events: 5, error_after: 4 });
	const last = await world.provider.last();
	assert.equal(sha256(withoutPings(answer.body)), last.sent_sha256);
	const entry = await record(answer);
	assert.equal(entry.outcome, 'provider_error');
	assert.equal(entry.error_type, 'overloaded_error');
	const first = await ask({ error_after: 0 });
	assert.equal(parseEvents(withoutPings(first.body))[0].json.error.type, 'overloaded_error');
	assert.equal((await record(first)).outcome, 'provider_error');
});

test('a stream that ends in order but too early is passed and recorded as partial', async () => {
	const answer = await ask({ events: 10, end_after: 6, usage: { input_tokens: 500, output_tokens: 100 } });
	const last = await world.provider.last();
	assert.equal(sha256(withoutPings(answer.body)), last.sent_sha256);
	const entry = await record(answer);
	assert.ok(entry.flags.includes('partial'), JSON.stringify(entry));
	assert.equal(entry.tokens.input, 500);
});

test('a stalled stream ends with a timeout event after stream_idle_ms', async () => {
	const begin = Date.now();
	const answer = await ask({ events: 10, fault: { kind: 'stall', after_events: 5 } }, { mayBreak: true });
	assert.ok(Date.now() - begin >= 2900);
	const error = parseEvents(withoutPings(answer.body)).at(-1);
	assert.ok(answer.cut, 'the body has no end');
	assert.equal(error.json.error.type, 'timeout_error');
	assert.equal((await record(answer)).outcome, 'upstream_failed');
	await until(async () => (await world.provider.last()).peer_left_ms !== null, 'the provider is released');
});

test('C27 a stream of announced length gets no ping, for there is no room for one', async () => {
	const answer = await ask({ events: 4, framing: 'length', cut: [700], gap_ms: 900 });
	assert.equal(answer.status, 200);
	const last = await world.provider.last();
	assert.equal(sha256(withoutPings(answer.body)), last.sent_sha256, answer.body.toString());
});

test('C30 a stream of announced length that breaks off does not look whole', async () => {
	const answer = await ask({ events: 20, framing: 'length', delay_ms: 2, fault: { kind: 'reset', after_events: 10 } }, { mayBreak: true });
	assert.ok(answer.cut || parseEvents(answer.body).at(-1).event === 'error', answer.body.toString().slice(-300));
});

test('C25 events in every spelling leave as they come', async () => {
	for (const style of ['crlf', 'cr', 'comments', 'lines', 'nameless'])
		await timely(async () => {
			const answer = await ask({ style, events: 10, delay_ms: 40 });
			return answer.times.at(-1) - answer.times[0] > 200 && answer.parts.length >= 8;
		}, `${style}: eight pieces or more, not all at once`);
});

test('C32 no answer before first_byte_ms: 504 for a plain request, an event for a stream', async () => {
	const plain = await world.ask({ key, script: { fault: { kind: 'stall_before_head' } } });
	refused(plain, 504, 'timeout_error');
	assert.ok((await world.weir.record(plain.headers.get('request-id'))).cost_nusd > 0, 'the provider may have read the prompt');
	const streamed = await ask({ fault: { kind: 'stall_before_head' } }, { mayBreak: true });
	assert.equal(streamed.status, 200);
	assert.equal(parseEvents(withoutPings(streamed.body)).at(-1).json.error.type, 'timeout_error');
	assert.ok((await record(streamed)).cost_nusd > 0, 'the same for a stream');
});

test('C32 a plain request with max_tokens 64000 answers one JSON Message with usage', async () => {
	const answer = await world.ask({ key, headers: [['x-stainless-timeout', '300']],
		body: messageBody({ max_tokens: 64000, script: { events: 2000, text_bytes: 100, delay_head_ms: 600 } }) });
	assert.equal(answer.status, 200);
	assert.match(answer.headers.get('content-type'), /^application\/json/);
	assert.equal(JSON.parse(answer.body).type, 'message');
	assert.ok(JSON.parse(answer.body).usage.output_tokens > 0);
});

test('C31 a client that leaves cancels the provider within a second and pays for what was used', async () => {
	for (const how of ['close', 'reset'])
		await timely(async () => {
			const client = await world.open();
			await client.send(messageRequest({ key, stream: true, script: { events: 2000, delay_ms: 20, tokens_per_event: 10, usage: { input_tokens: 700 } } }));
			const head = await client.head(), state = bodyState(head, 'POST');
			for (let i = 0; i < 20; i++)
				await client.part(state);
			const left = Date.now();
			client[how]();
			const last = await until(async () => {
				const [entry] = await world.provider.requests(1);
				return entry.peer_left_ms !== null && entry;
			}, 'the provider sees the client leave');
			const entry = await record(head);
			assert.equal(entry.outcome, 'client_gone');
			assert.equal(entry.tokens.input, 700);
			assert.ok(entry.tokens.output > 0, 'an estimate of the output so far');
			assert.ok(entry.cost_nusd > 0);
			return last.peer_left_ms - left < 1000;
		}, `${how}: the provider hears of it within a second`);
});

test('C31 a client that leaves before the answer begins', async () => {
	let tries = 0;
	await timely(async () => {
		const client = await world.open(), hasty = await world.weir.key(`hasty-${tries++}`);
		const before = (await world.provider.stats()).requests;
		await client.send(messageRequest({ key: hasty, stream: true, script: { delay_head_ms: 100000 } }));
		await until(async () => (await world.provider.stats()).requests > before, 'the request is with the provider');
		client.close();
		const left = Date.now();
		const last = await until(async () => { const [r] = await world.provider.requests(1); return r.peer_left_ms !== null && r; }, 'the provider is released');
		const [entry] = await world.weir.records(1, `key_id=${hasty.id}`);
		assert.equal(entry.outcome, 'client_gone');
		assert.ok(entry.cost_nusd > 0 && entry.flags.includes('estimated'), 'the provider may have read the prompt');
		return last.peer_left_ms - left < 1000;
	}, 'the provider hears of it within a second');
});

test('a client that reads nothing for stream_idle_ms is let go, and the provider too', async () => {
	const client = await world.open();
	await client.send(messageRequest({ key, stream: true, script: { events: 2500, text_bytes: 16000 } }));
	await client.head();
	client.pause();
	const last = await until(async () => { const r = (await world.provider.requests(1))[0]; return r.peer_left_ms !== null && r; }, 'the provider is released', undefined, 100);
	assert.equal(last.complete, false);
	const [entry] = await until(async () => { const found = await world.weir.logs(`provider_request_id=${last.id}`); return found.length > 0 && found; }, 'its record');
	assert.equal(entry.outcome, 'client_gone');
	assert.ok(entry.cost_nusd > 0);
	client.close();
});

test('back-pressure: a client that does not read holds the provider, and nobody\'s memory', async () => {
	const patient = await World.open();	/* which does not let go of it meanwhile */
	try {
		await holdBack(patient, await patient.weir.key('reader'));
	} finally {
		await patient.close();
	}
});

async function holdBack(world, key) {
	const client = await world.open();
	await client.send(messageRequest({ key, stream: true, script: { events: 2500, text_bytes: 16000 } }));
	const head = await client.head();
	client.pause();
	let seen = -1;
	const stuck = await until(async () => {
		const now = (await world.provider.requests(1))[0].sent_bytes;
		if (now === seen)
			return now;
		seen = now;
		return undefined;
	}, 'the provider is held', undefined, 400);
	assert.ok(stuck < 24 << 20, `${stuck} bytes were taken without a reader`);
	client.resume();
	const state = bodyState(head, 'POST'), parts = [];
	for (let part; (part = await client.part(state)) !== null;)
		parts.push(part);
	const last = await world.provider.last();
	assert.ok(last.sent_bytes > 38 << 20);
	assert.equal(sha256(withoutPings(Buffer.concat(parts))), last.sent_sha256);
	client.close();
}
