// x-portkey-metadata: merged, recorded, refused with the place of the mistake.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { World, refused } from './harness.mjs';

let world, key, tagged;

before(async () => {
	world = await World.open();
	key = await world.weir.key('plain');
	tagged = await world.weir.key('tagged', '--metadata', '{"team":"river","cost_center":"42"}');
});
after(() => world.close());

const send = (header, who = key) => world.ask({ key: who, headers: header === null ? [] : [['x-portkey-metadata', header]] });
const stored = async (answer) => (await world.weir.record(answer.headers.get('x-weir-request-id'))).metadata;

test('an object of strings is recorded as it is; numbers and booleans become text, null is left out', async () => {
	const answer = await send('{"_user":"ada","env":"prod","n":12,"f":1.50,"yes":true,"none":null,"deep":{"a":[1]},"uml":"\\u00fc \\"q\\""}');
	assert.equal(answer.status, 200, answer.body.toString());
	assert.deepEqual(await stored(answer), { _user: 'ada', env: 'prod', n: '12', f: '1.50', yes: 'true', deep: '{"a":[1]}', uml: '\u00fc "q"' });
});

test('UTF-8 in the header itself arrives', async () => {
	const answer = await send(Buffer.from('{"team":"Gr\u00f6\u00dfe"}').toString('latin1'));
	assert.deepEqual(await stored(answer), { team: 'Gr\u00f6\u00dfe' });
});

test('a key\'s own metadata cannot be overruled by its user', async () => {
	const answer = await send('{"team":"sea","app":"x"}', tagged);
	assert.deepEqual(await stored(answer), { team: 'river', app: 'x', cost_center: '42' });
	assert.deepEqual(await stored(await send(null, tagged)), { team: 'river', cost_center: '42' });
	assert.deepEqual(await stored(await send(null)), {});
});

test('a malformed header is a 400 that names the place', async () => {
	const long = 'v'.repeat(129);
	const cases = [['{', /byte 1|end/], ['[]', /object/], ['"x"', /object/], ['{"a":}', /byte 5/], ['{"a":1,}', /byte 7/], ['{"a" "b"}', /byte/],
		['{"a":"b"} x', /byte 10/], [`{"team":"${long}"}`, /"team".*128/], [`{"${'k'.repeat(200)}":"v"}`, /128/],
		['{"a":01}', /byte/], ['{\'a\':1}', /byte/], [JSON.stringify(Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`k${i}`, 'v']))), /64/],
		[JSON.stringify(Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`k${i}`, 'v'.repeat(120)]))), /1536|bytes/]];
	for (const [header, words] of cases) {
		const message = refused(await send(header), 400, 'invalid_request_error');
		assert.match(message, /x-portkey-metadata/);
		assert.match(message, words, `${header.slice(0, 60)} -> ${message}`);
	}
	const records = await world.weir.records(cases.length, `key_id=${key.id}`, 'status=400');
	assert.ok(records.every((r) => r.outcome === 'invalid' && r.cost_nusd === 0));
});

test('half a surrogate pair cannot be text and becomes the replacement character', async () => {
	assert.deepEqual(await stored(await send('{"a":"x\\ud800y"}')), { a: 'x\ufffdy' });
});

test('128 characters fit, of any script', async () => {
	for (const value of ['x'.repeat(128), '\u00fc'.repeat(128), '\u6f22'.repeat(128)]) {
		const answer = await send(Buffer.from(JSON.stringify({ v: value })).toString('latin1'));
		assert.equal(answer.status, 200, answer.body.toString());
		assert.deepEqual(await stored(answer), { v: value });
	}
});

test('logs can be filtered by metadata', async () => {
	await send('{"app":"filter-me"}');
	const [record] = await world.weir.records(1, 'metadata.app=filter-me');
	assert.equal(record.metadata.app, 'filter-me');
});

test('required fields: from the header, from the key, and the refusal names the one that is missing', async () => {
	const strict = await World.open({ settings: { metadata: { required: ['team', 'app'] } } });
	try {
		const k = await strict.weir.key('k'), t = await strict.weir.key('t', '--metadata', '{"team":"river"}');
		const ask = (who, header) => strict.ask({ key: who, headers: header ? [['x-portkey-metadata', header]] : [] });
		assert.match(refused(await ask(k), 400, 'invalid_request_error'), /"team"/);
		assert.match(refused(await ask(k, '{"team":"x"}'), 400, 'invalid_request_error'), /"app"/);
		assert.equal((await ask(k, '{"team":"x","app":"y"}')).status, 200);
		assert.equal((await ask(t, '{"app":"y"}')).status, 200);
	} finally {
		await strict.close();
	}
});

test('lenient: what is malformed is left out, as Portkey does', async () => {
	const lenient = await World.open({ settings: { metadata: { lenient: true } } });
	try {
		const k = await lenient.weir.key('k');
		const ask = async (header) => {
			const answer = await lenient.ask({ key: k, headers: [['x-portkey-metadata', header]] });
			assert.equal(answer.status, 200, answer.body.toString());
			return (await lenient.weir.record(answer.headers.get('x-weir-request-id'))).metadata;
		};
		assert.deepEqual(await ask('not json'), {});
		assert.deepEqual(await ask(`{"a":"${'v'.repeat(200)}","b":"ok"}`), { a: 'v'.repeat(128), b: 'ok' });
	} finally {
		await lenient.close();
	}
});
