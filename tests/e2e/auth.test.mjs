// Who may ask: keys, their headers, their end.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { API_KEY, World, messageRequest, refused, until } from './harness.mjs';

let world, key;

before(async () => {
	world = await World.open({ workers: 4 });
	key = await world.weir.key('auth', '--workspace', 'team-a');
});
after(() => world.close());

const ask = (headers, rest = {}) => world.ask({ headers, ...rest });

test('C6 a key works as Bearer, as x-api-key and as x-portkey-api-key', async () => {
	for (const headers of [[['authorization', `Bearer ${key.secret}`]], [['Authorization', `bearer  ${key.secret} `]],
		[['x-api-key', key.secret]], [['X-API-KEY', key.secret]], [['x-portkey-api-key', key.secret]]])
		assert.equal((await ask(headers)).status, 200, JSON.stringify(headers[0][0]));
});

test('C7 both headers: equal, or one valid and one placeholder', async () => {
	const bearer = (v) => ['authorization', `Bearer ${v}`], plain = (v) => ['x-api-key', v];
	for (const headers of [[bearer(key.secret), plain(key.secret)], [bearer(key.secret), plain('dummy')], [bearer('dummy'), plain(key.secret)],
		[plain(''), bearer(key.secret)]])
		assert.equal((await ask(headers)).status, 200, JSON.stringify(headers.map(([n]) => n)));
	refused(await ask([bearer('dummy'), plain('dummy')]), 401, 'authentication_error');
});

test('no key, an unknown key, and odd credentials are 401 without a hint of which', async () => {
	for (const headers of [[], [['x-api-key', '']], [['x-api-key', 'weir_sk_' + 'A'.repeat(43)]], [['authorization', 'Basic eDp5']],
		[['authorization', 'Bearer']], [['authorization', `Bearer${key.secret}`]], [['x-api-key', key.secret.slice(0, -1)]],
		[['x-api-key', key.secret + 'x']], [['x-api-key', key.secret.toUpperCase()]], [['x-api-key', 'a'.repeat(20000)]]]) {
		const answer = await ask(headers);
		refused(answer, 401, 'authentication_error');
		assert.equal(answer.headers.get('x-should-retry'), 'false');
		assert.equal(answer.headers.get('www-authenticate'), 'Bearer');
		assert.ok(!answer.body.includes(key.secret.slice(8)), 'the answer repeats a secret');
	}
});

test('C8 no credential of the client reaches the provider, nor the log, nor the records', async () => {
	const marks = { authorization: `Bearer ${key.secret}`, 'x-api-key': 'placeholder-7f3a', cookie: 'session=crumb-91c2',
		'proxy-authorization': 'Basic cHJveHktNGQ0', 'x-portkey-api-key': key.secret, 'x-portkey-trace-id': 'trace-55' };
	assert.equal((await ask(Object.entries(marks), { script: { events: 1 } })).status, 200);
	const { lines } = await world.provider.last();
	const wire = lines.join('\n');
	for (const secret of [key.secret, 'placeholder-7f3a', 'crumb-91c2', 'cHJveHktNGQ0', 'trace-55'])
		assert.ok(!wire.includes(secret), `${secret} in ${wire}`);
	assert.deepEqual(lines.filter((l) => /^x-api-key:/i.test(l)), [`x-api-key: ${API_KEY}`]);
	assert.ok(!lines.some((l) => /^(authorization|cookie|x-portkey)/i.test(l)));
	const records = await until(async () => {
		const found = await world.weir.logs(`key_id=${key.id}`);
		return found.some((r) => r.trace_id === 'trace-55') && JSON.stringify(found);
	}, 'the record of that request');
	for (const secret of [key.secret, API_KEY, 'placeholder-7f3a', 'crumb-91c2'])
		assert.ok(!records.includes(secret) && !world.weir.stderr.includes(secret), secret);
});

test('C10 a revoked key is refused by every worker from the next request on', async () => {
	const doomed = await world.weir.key('doomed');
	const clients = await Promise.all(Array.from({ length: 32 }, () => world.open()));
	for (const answer of await Promise.all(clients.map((c) => c.exchange(messageRequest({ key: doomed })))))
		assert.equal(answer.status, 200);
	const revoked = await world.weir.command('key', 'revoke', '--config', world.weir.configPath, 'doomed');
	assert.equal(revoked.code, 0, revoked.stderr);
	for (const answer of await Promise.all(clients.map((c) => c.exchange(messageRequest({ key: doomed }))))) {
		refused(answer, 401, 'authentication_error');
		assert.equal(answer.headers.get('x-should-retry'), 'false');
	}
	clients.forEach((c) => c.close());
	assert.equal((await world.provider.requests()).filter((r) => r.body_sha256 === null).length, 0);
});

test('a refusal for a known key leaves a record, one for an unknown key does not', async () => {
	const gone = await world.weir.key('gone');
	await world.weir.command('key', 'revoke', '--config', world.weir.configPath, 'gone');
	refused(await ask([['x-api-key', 'weir_sk_unknown']]), 401, 'authentication_error');
	refused(await ask([['x-api-key', gone.secret]]), 401, 'authentication_error');
	const [record] = await world.weir.records(1, `key_id=${gone.id}`);
	assert.equal(record.status, 401);
	assert.equal(record.cost_nusd, 0);
	assert.deepEqual((await world.weir.logs()).filter((r) => r.key_id === ''), []);
});

test('an expired key is refused, one that expires later is not', async () => {
	const later = await world.weir.key('later', '--expires', '2099-01-01T00:00:00Z');
	const soon = await world.weir.key('soon', '--expires', new Date(Date.now() + 2000).toISOString().replace(/\.\d+Z/, 'Z'));
	assert.equal((await ask([['x-api-key', later.secret]])).status, 200);
	const message = await until(async () => {
		const answer = await ask([['x-api-key', soon.secret]]);
		return answer.status === 401 && refused(answer, 401, 'authentication_error');
	}, 'the key expires');
	assert.match(message, /expired/);
});

test('a rotated key: the new secret works at once, the id stays', async () => {
	const first = await world.weir.key('turning');
	const rotated = await world.weir.command('key', 'rotate', '--config', world.weir.configPath, 'turning', '--json');
	assert.equal(rotated.code, 0, rotated.stderr);
	const second = JSON.parse(rotated.stdout);
	assert.equal(second.id, first.id);
	assert.notEqual(second.secret, first.secret);
	assert.equal((await ask([['x-api-key', second.secret]])).status, 200);
	const again = await world.weir.command('key', 'revoke', '--config', world.weir.configPath, 'turning');
	assert.equal(again.code, 0);
	for (const secret of [first.secret, second.secret])
		refused(await ask([['x-api-key', secret]]), 401, 'authentication_error');
});

test('the store holds no secret', async () => {
	const { readdirSync, readFileSync } = await import('node:fs');
	const files = readdirSync(world.weir.settings.data_dir, { recursive: true, withFileTypes: true }).filter((e) => e.isFile());
	assert.ok(files.length > 0);
	for (const file of files) {
		const bytes = readFileSync(`${file.parentPath ?? file.path}/${file.name}`);
		assert.equal(bytes.indexOf(key.secret.slice(8)), -1, file.name);
		assert.equal(bytes.indexOf(API_KEY), -1, file.name);
	}
});
