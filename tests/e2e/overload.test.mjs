// A provider that says 200 and then that it is overloaded: held back and tried
// elsewhere while there is an elsewhere and nothing has been said; passed on as
// it came otherwise.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { parseEvents, withoutPings } from './client.mjs';
import { World, messageRequest, until } from './harness.mjs';
import { HARDY, billed, fallback, inline, isAnswerOf, labelled, newLabel, followed, recordOf, sdk, target, triesOf, walk, MODEL } from './routes.mjs';

let world, key;

before(async () => {
	world = await World.open({ workers: 1, providers: [{ slug: 'a' }, { slug: 'b' }], settings: { ...HARDY, routing: { hold_ms: 60000 } } });
	key = await world.weir.key('overload');
});
after(() => world.close());

const usage = { input_tokens: 1000, output_tokens: 100 };
const both = fallback(['a', 'b']);
const ask = (a, rest = {}) => walk(world, { key, config: both, stream: true, script: { events: 6, usage, accounts: { a } }, ...rest });
const eventsOf = (answer) => parseEvents(withoutPings(answer.body)).map((e) => e.event);

describe('while another target is left', () => {
	/* How the stream of a begins before it says that it is overloaded, and what that costs. */
	for (const [name, a, cost] of [['as its first event', { error_after: 0 }, 0], ['behind a ping', { ping_first: true, error_after: 1 }, 0],
		['behind message_start', { error_after: 1 }, 1000 * 2000 + 10000], ['behind a ping and message_start', { ping_first: true, error_after: 2 }, 1000 * 2000 + 10000]])
		test(`overloaded ${name}: the client sees the other target's stream and nothing else`, async () => {
			const seen = await ask(a);
			isAnswerOf(seen, 'b');
			assert.deepEqual([seen.hits, seen.route.index, seen.route.slug, seen.route.attempts], [{ a: 1, b: 1 }, 'config.targets[1]', 'b', 2]);
			const record = await recordOf(world, seen.answer);
			assert.deepEqual([record.outcome, record.status, record.provider, record.tries.length], ['ok', 200, 'b', 2]);
			assert.equal(record.tries[0].error, 'overloaded_error');
			assert.equal(Number(billed({ a: seen.at.a })), cost);
			if (!record.flags.includes('estimated')) {
				assert.equal(record.tries[0].cost_nusd, cost);
				assert.equal(BigInt(record.cost_nusd), billed(seen.at));
			}
		});

	test('it counts as 529 for the list of statuses', async () => {
		for (const [codes, from] of [[[529], 'b'], [[500], 'a']]) {
			const seen = await ask({ error_after: 0 }, { config: fallback(['a', 'b'], { on_status_codes: codes }) });
			isAnswerOf(seen, from);
			assert.equal(seen.hits.b, from === 'b' ? 1 : undefined);
		}
	});

	test('the SDK does not notice', async () => {
		const client = sdk(world, key, [inline(both)]), label = newLabel();
		const stream = client.messages.stream({ model: MODEL, max_tokens: 1024, messages: JSON.parse(labelled(label, { script: { events: 3, accounts: { a: { error_after: 1 } } } })).messages });
		const message = await stream.finalMessage();
		assert.equal(message.stop_reason, 'end_turn');
		assert.deepEqual((await followed(world, label)).hits, { a: 1, b: 1 });
	});

	test('what may still be taken back is held; content lets it go', async () => {
		const client = await world.open(), label = newLabel();
		await client.send(messageRequest({ key, headers: [inline(both)], stream: true,
			body: labelled(label, { stream: true, script: { events: 4, hold: { after_events: 1, gate: 'held' } } }) }));
		await world.providers.a.held(1);
		for (let i = 0; i < 20; i++)	/* the one worker goes round */
			assert.equal((await world.ask({ key, headers: [inline(target('a'))] })).status, 200);
		assert.equal(client.received, 0, 'message_start alone says nothing');
		await world.providers.a.release('held');
		const answer = await client.response();
		isAnswerOf({ answer, ...await followed(world, label) }, 'a');
		assert.equal(parseEvents(withoutPings(answer.body)).length, 9);
		client.close();
	});

	test('but not longer than routing.hold_ms', async () => {
		const brief = await World.open({ workers: 1, providers: [{ slug: 'a' }, { slug: 'b' }], settings: { ...HARDY, routing: { hold_ms: 300 } } });
		try {
			const own = await brief.weir.key('brief'), client = await brief.open(), label = newLabel();
			await client.send(messageRequest({ key: own, headers: [inline(both)], stream: true,
				body: labelled(label, { stream: true, script: { events: 4, hold: { after_events: 1, gate: 'brief' } } }) }));
			await brief.providers.a.held(1);
			await until(() => client.received > 0, 'message_start comes all the same');
			await brief.providers.a.release('brief');
			isAnswerOf({ answer: await client.response(), ...await followed(brief, label) }, 'a');
			client.close();
		} finally {
			await brief.close();
		}
	});
});

describe('when no other target is left', () => {
	const LAST = [['a config without targets', target('a'), {}], ['the last of a fallback', fallback(['b', 'a']), { b: { error: 'internal' } }],
		['a list that does not name 529', fallback(['a', 'b'], { on_status_codes: [500] }), {}]];

	for (const [name, config, accounts] of LAST) {
		test(`${name}: the error event reaches the client as it came`, async () => {
			for (const after of [0, 1]) {
				const seen = await walk(world, { key, config, stream: true, script: { events: 6, usage, accounts: { ...accounts, a: { error_after: after } } } });
				isAnswerOf(seen, 'a');
				assert.equal(eventsOf(seen.answer).at(-1), 'error');
				const record = await recordOf(world, seen.answer);
				assert.deepEqual([record.outcome, record.error_type], ['provider_error', 'overloaded_error']);
			}
		});

		test(`${name}: message_start is not held`, async () => {
			const client = await world.open();
			await client.send(messageRequest({ key, headers: [inline(config)], stream: true,
				body: labelled(newLabel(), { stream: true, script: { events: 3, accounts: { ...accounts, a: { hold: { after_events: 1, gate: 'open' } } } } }) }));
			await world.providers.a.held(1);
			await until(() => client.received > 0, 'message_start is here while the provider is held');
			await world.providers.a.release('open');
			assert.equal(eventsOf(await client.response()).at(-1), 'message_stop');
			client.close();
		});
	}
});

test('after content there is no way back: the error event is passed on, and the record says so', async () => {
	const seen = await ask({ error_after: 4 });
	isAnswerOf(seen, 'a');
	assert.deepEqual(seen.hits, { a: 1 });
	assert.deepEqual(eventsOf(seen.answer), ['message_start', 'content_block_start', 'content_block_delta', 'content_block_delta', 'error']);
	const record = await recordOf(world, seen.answer);
	assert.deepEqual([record.outcome, record.error_type, record.provider], ['provider_error', 'overloaded_error', 'a']);
});

test('a break after content is an error event, and nobody else is asked', async () => {
	for (const kind of ['reset', 'close', 'bad_chunk']) {
		const seen = await ask({ fault: { kind, after_events: 4 } }, { mayBreak: true });
		assert.deepEqual(seen.hits, { a: 1 }, kind);
		assert.deepEqual(eventsOf(seen.answer), ['message_start', 'content_block_start', 'content_block_delta', 'content_block_delta', 'error'], kind);
		assert.equal((await recordOf(world, seen.answer)).outcome, 'upstream_failed');
	}
});

test('a break before content goes on elsewhere', async () => {
	for (const fault of [{ kind: 'reset', after_events: 1 }, { kind: 'close', after_events: 1 }, { kind: 'reset', after_events: 0 }]) {
		const seen = await ask({ fault });
		isAnswerOf(seen, 'b');
		assert.equal(triesOf(await recordOf(world, seen.answer)).split(', ').length, 2, JSON.stringify(fault));
	}
});

test('a plain answer is not held and not looked into', async () => {
	const seen = await walk(world, { key, config: both, script: { events: 3, usage } });
	isAnswerOf(seen, 'a');
	assert.deepEqual(seen.hits, { a: 1 });
});
