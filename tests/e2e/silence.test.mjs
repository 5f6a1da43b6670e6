// Whatever a stream waits for, its client hears something now and then, and what
// it hears is an answer from its first byte on.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { withoutPings } from './client.mjs';
import { World, messageBody, until } from './harness.mjs';
import { HARDY, MODEL, fallback, routeOf, target, walk } from './routes.mjs';

const PING_MS = 100, WAIT_MS = 1000;
let world, key;
before(async () => {
	world = await World.open({ workers: 1, providers: [{ slug: 'a' }, { slug: 'b' }], settings: { ...HARDY, limits: { ping_ms: PING_MS } } });
	key = await world.weir.key('silence');
});
after(() => world.close());

/** A whole stream, with words to wait for ahead of its first event. */
function waited(answer) {
	const text = answer.body.toString();
	assert.equal(answer.status, 200, text);
	assert.match(text, /^(: wait\n\n)+event: message_start\n/);
	assert.match(text, /event: message_stop\n.*\n\n$/);
	return text;
}

const slowly = { delay_first_ms: WAIT_MS };

test('for the first event, whose model is to be renamed', async () => {
	const { answer } = await walk(world, { key, stream: true, config: target('a', { override_params: { model: 'claude-opus-4-6' } }), script: slowly });
	assert.ok(waited(answer).includes(`"model":"${MODEL}"`), 'it is renamed all the same');
});

test('for the first event, while another target could take its place', async () => {
	const { answer, hits, at } = await walk(world, { key, stream: true, config: fallback(['a', 'b']), script: slowly });
	waited(answer);
	assert.deepEqual(hits, { a: 1 });
	assert.equal(withoutPings(answer.body).toString().replace(/^(: wait\n\n)+/, '').length, at.a[0].sent_bytes, 'nothing is missing behind them');
});

test('and the other target still takes its place', async () => {
	const { answer, hits } = await walk(world, { key, stream: true, config: fallback(['a', 'b']), script: { accounts: { a: { ...slowly, error_after: 0 } } } });
	waited(answer);
	assert.deepEqual(hits, { a: 1, b: 1 });
});

test('for the next attempt', async () => {
	const { answer, hits } = await walk(world, { key, stream: true, config: target('a', { retry: { attempts: 1 } }), script: { in_turn: [{ error: 'overloaded' }, {}] } });
	waited(answer);
	assert.deepEqual(hits, { a: 2 });
});

test('for an answer that another request fetches into the cache', async () => {
	const cached = (script) => walk(world, { key, stream: true, config: target('a', { cache: { mode: 'simple' } }), script, label: 'fetched' });
	await until(async () => (await walk(world, { key, config: target('a', { cache: { mode: 'simple' } }) })).route.cache === 'MISS', 'there is a cache');
	const script = { events: 10, delay_ms: WAIT_MS / 10 }, [one, other] = await Promise.all([cached(script), cached(script)]);
	assert.equal(routeOf(one.answer).cache, 'MISS');
	waited(other.answer);
	assert.equal((await world.providers.a.labelled('fetched')).length, 1);
	assert.equal((await walk(world, { key, body: { model: MODEL } })).answer.status, 200, 'the worker lives');
});
