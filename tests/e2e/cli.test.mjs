// The command line: words, exit statuses, and one clear line for each mistake.

import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { WEIR_BIN, World, refused, run, start, until } from './harness.mjs';

let world, weir;

before(async () => {
	world = await World.open({ tls: true });
	weir = world.weir;
});
after(() => world.close());

const cli = (...args) => run(WEIR_BIN, args);

/** Exit status 2, and exactly one line on stderr that says `words`. */
function mistaken(done, words) {
	assert.equal(done.code, 2, done.stderr);
	assert.match(done.stderr, words);
	assert.doesNotMatch(done.stderr, /\n./, `more than one line:\n${done.stderr}`);
	assert.match(done.stderr, /^weir: /);
}

/** weir check on these settings: {code, stdout, stderr}. */
function check(settings) {
	const file = path.join(world.dir, 'checked.json');
	writeFileSync(file, typeof settings === 'string' ? settings : JSON.stringify(settings));
	return cli('check', file);
}

test('version, help, and words that are not known', async () => {
	assert.match((await cli('version')).stdout, /^weir \d+\.\d+\.\d+\n$/);
	for (const args of [['help'], ['--help'], ['serve', '--help'], ['key', '--help'], ['logs', '--help'], ['check', '--help']]) {
		const done = await cli(...args);
		assert.equal(done.code, 0, args.join(' '));
		assert.match(done.stdout, /usage: weir/);
	}
	for (const args of [['sevre'], ['key', 'creat'], ['serve', '--workers', '0'], ['serve', '--workers', 'x'], ['serve', 'extra'], ['serve', '--nope'],
		['logs', '--nope'], ['logs', '--where', 'colour=red', '--data-dir', world.dir], ['logs', '--where', 'status', '--data-dir', world.dir], ['check']])
		assert.equal((await cli(...args)).code, 2, args.join(' '));
});

test('a key: its secret is shown once, and the list has no secret', async () => {
	const plain = await weir.command('key', 'create', '--config', weir.configPath, '--slug', 'shown', '--workspace', 'w', '--rpm', '60', '--budget', '12.50',
		'--budget-period', 'monthly', '--metadata', '{"team":"a"}', '--model', 'claude-*', '--expires', '2099-12-31T00:00:00Z', '--name', 'A key');
	assert.equal(plain.code, 0, plain.stderr);
	const [secret] = plain.stdout.match(/weir_sk_[A-Za-z0-9_-]{40,}/g);
	assert.equal((await world.ask({ key: secret })).status, 200);
	const json = await weir.key('asjson', '--rpm', '5');
	assert.match(json.id, /^key_[0-9a-f]{16}$/);
	assert.match(json.secret, /^weir_sk_/);
	for (const format of [[], ['--json']]) {
		const list = await weir.command('key', 'list', '--config', weir.configPath, ...format);
		assert.equal(list.code, 0, list.stderr);
		assert.ok(list.stdout.includes('shown') && list.stdout.includes('asjson'));
		assert.ok(!list.stdout.includes(secret) && !list.stdout.includes(json.secret) && !/weir_sk_[A-Za-z0-9_-]{20}/.test(list.stdout));
		assert.doesNotMatch(list.stdout, /sha256|hashes/);
	}
	const [listed] = JSON.parse((await weir.command('key', 'list', '--config', weir.configPath, '--json')).stdout).filter((k) => k.slug === 'shown');
	assert.equal(Number(listed.usage_limits[0].credit_limit), 12.5);
	assert.deepEqual(listed.metadata, { team: 'a' });
});

test('mistakes in key create are one line and status 2', async () => {
	const create = (...args) => weir.command('key', 'create', '--config', weir.configPath, ...args);
	for (const [args, words] of [[[], /--slug/], [['--slug', 'a', '--rpm', '0'], /--rpm/], [['--slug', 'a', '--rpm', 'many'], /--rpm/], [['--slug', 'a', '--budget', '-1'], /--budget/],
		[['--slug', 'a', '--budget', '1e9'], /--budget/], [['--slug', 'a', '--budget', '0.0000000001'], /--budget/], [['--slug', 'a', '--budget-period', 'yearly', '--budget', '1'], /--budget-period/],
		[['--slug', 'a', '--metadata', '{'], /--metadata/], [['--slug', 'a', '--expires', 'tomorrow'], /--expires/], [['--slug', 'a/b'], /--slug/],
		[['--slug', 'a', '--routing-config', 'pc-none'], /--routing-config/], [['--slug', ''], /--slug/]])
		mistaken(await create(...args), words);
	await weir.key('taken');
	const again = await create('--slug', 'taken');
	assert.notEqual(again.code, 0);
	assert.match(again.stderr, /taken/);
	assert.notEqual((await weir.command('key', 'revoke', '--config', weir.configPath, 'nobody')).code, 0);
});

test('rotate with a grace: both secrets work until it is over', async () => {
	const rotate = async (slug, grace) => {
		const rotated = await weir.command('key', 'rotate', slug, '--grace', grace, '--config', weir.configPath, '--json');
		assert.equal(rotated.code, 0, rotated.stderr);
		return JSON.parse(rotated.stdout);
	};
	const first = await weir.key('graceful'), second = await rotate('graceful', '10m');
	for (const secret of [first.secret, second.secret])
		assert.equal((await world.ask({ key: secret })).status, 200);
	const brief = await weir.key('brief'), next = await rotate('brief', '1s');
	await until(async () => (await world.ask({ key: brief.secret })).status === 401, 'the old secret expires');
	assert.equal((await world.ask({ key: next.secret })).status, 200);
});

test('logs: filters, limits, sums, people\'s form, and following', async () => {
	const key = await weir.key('reader');
	for (let i = 0; i < 6; i++)
		await world.ask({ key, stream: i % 2 === 0, script: i === 5 ? { error: 'overloaded' } : {}, headers: [['x-portkey-metadata', `{"n":"${i}"}`]] });
	const records = await weir.records(6, `key_id=${key.id}`);
	const logs = (...args) => weir.command('logs', '--config', weir.configPath, ...args);
	const lines = async (...args) => (await logs('--json', '--where', 'key=reader', ...args)).stdout.split('\n').filter(Boolean).map((l) => JSON.parse(l));
	assert.deepEqual((await lines('--limit', '2')).map((r) => r.request_id), records.slice(-2).map((r) => r.request_id));
	assert.equal((await lines('--where', 'status=529')).length, 1);
	assert.equal((await lines('--where', 'outcome=ok')).length, 5);
	assert.equal((await lines('--where', 'outcome=ok', '--where', 'metadata.n=3')).length, 1);
	assert.equal((await lines('--since', '1h')).length, 6);
	assert.equal((await lines('--since', '2099-01-01T00:00:00Z')).length, 0);
	const sum = JSON.parse((await logs('--sum', '--where', 'key=reader')).stdout);
	assert.equal(sum.count, 6);
	assert.equal(BigInt(sum.cost_nusd), records.reduce((n, r) => n + BigInt(r.cost_nusd), 0n));
	assert.ok((await logs('--where', 'key=reader')).stdout.includes('claude-sonnet-5-5'));

	const follower = start(WEIR_BIN, ['logs', '--config', weir.configPath, '--follow', '--json', '--where', 'key=reader', '--where', 'metadata.n=late']);
	let seen = '';
	follower.stdout.on('data', (text) => { seen += text; });
	const ended = new Promise((resolve) => follower.once('exit', resolve));
	try {
		await world.ask({ key, headers: [['x-portkey-metadata', '{"n":"late"}']] });
		await until(() => seen.includes('"late"'), 'the follower prints it');
	} finally {
		follower.kill('SIGINT');
		await ended;
	}
});

test('check: a good file, and every mistake by its path', async () => {
	const good = weir.settings;
	assert.equal((await check(good)).code, 0);
	for (const [change, words] of [[{ colour: 'red' }, /colour/], [{ workers: 'four' }, /workers/], [{ workers: -1 }, /workers/], [{ limits: { ping_ms: 'x' } }, /limits\.ping_ms/],
		[{ limits: { pong_ms: 1 } }, /limits\.pong_ms/], [{ listen: ['nowhere'] }, /listen\[0\]/], [{ listen: ['127.0.0.1:99999'] }, /listen\[0\]/], [{ listen: [] }, /listen/],
		[{ tls: { certificate: '/nonexistent', key: good.tls.key } }, /tls\.certificate/], [{ tls: undefined }, /tls/],
		[{ providers: [good.providers[0], good.providers[0]] }, /providers\[1\]/], [{ providers: [{ ...good.providers[0], type: 'oracle' }] }, /providers\[0\]\.type/],
		[{ providers: [{ ...good.providers[0], base_url: 'ftp://x' }] }, /providers\[0\]\.base_url/], [{ providers: [{ ...good.providers[0], api_key: '${WEIR_TEST_UNSET}' }] }, /WEIR_TEST_UNSET/],
		[{ providers: [{ ...good.providers[0], ca_file: '/nonexistent' }] }, /ca_file/], [{ default_provider: 'nobody' }, /default_provider/],
		[{ configs: [{ slug: 'pc-a', config: { strategy: { mode: 'fallback' }, targets: [] } }] }, /configs\[0\]/], [{ configs: [{ slug: 'a', config: { colour: 1 } }] }, /configs\[0\]\.config\.colour/],
		[{ prices: [{ model: 'm' }] }, /prices\[0\]/], [{ budgets: { style: 'loose' } }, /budgets\.style/], [{ log: { level: 'loud' } }, /log\.level/]]) {
		const done = await check({ ...good, ...change });
		assert.equal(done.code, 2, `${JSON.stringify(change)}: ${done.stdout}${done.stderr}`);
		assert.match(done.stdout + done.stderr, words, JSON.stringify(change));
	}
	for (const text of ['', '{', '[]', '{"listen":}', '{"workers":1,"workers":2}', '// comment\n{}'])
		assert.equal((await check(text)).code, 2, text);
	const several = await check({ ...good, colour: 1, shape: 2, limits: { ping_ms: 'x' } });
	for (const place of ['colour', 'shape', 'limits.ping_ms'])
		assert.ok((several.stdout + several.stderr).includes(place), 'all mistakes at once');
	assert.equal((await cli('check', '/nonexistent.json')).code, 2);
});

test('a certificate that does not fit its key is found before it is served', async () => {
	const { makeCertificate } = await import('./certificates.mjs');
	const other = makeCertificate(world.dir, world.authority, 'unfit');
	const done = await check({ ...weir.settings, tls: { certificate: weir.settings.tls.certificate, key: other.key } });
	assert.equal(done.code, 2);
	assert.match(done.stdout + done.stderr, /tls\.key|does not (match|belong|fit)/);
	copyFileSync('/dev/null', path.join(world.dir, 'empty.pem'));
	assert.equal((await check({ ...weir.settings, tls: { certificate: path.join(world.dir, 'empty.pem'), key: other.key } })).code, 2);
});

test('secrets come from the environment and from files', async () => {
	const secret = path.join(world.dir, 'secret');
	writeFileSync(secret, 'sk-ant-simulated-account\n');
	for (const api_key of ['${WEIR_E2E_KEY}', `file:${secret}`]) {
		const other = await World.open({ start: false });
		try {
			other.weir.write({ ...other.weir.settings, providers: [{ ...other.weir.settings.providers[0], api_key }] });
			await other.weir.start({ env: { WEIR_E2E_KEY: 'sk-ant-simulated-account' } });
			assert.equal((await other.ask({ key: await other.weir.key('k') })).status, 200, api_key);
		} finally {
			await other.close();
		}
	}
});

/** Starts weir on these settings and expects it to give up. */
async function startFails(settings, words) {
	const file = path.join(world.dir, 'failing.json');
	writeFileSync(file, JSON.stringify(settings));
	const done = await run(WEIR_BIN, ['serve', '--config', file]);
	assert.equal(done.code, 2, `${done.code}: ${done.stderr}`);
	const lines = done.stderr.split('\n').filter((l) => l.startsWith('weir: '));
	assert.equal(lines.length, 1, done.stderr);
	assert.match(lines[0], words);
}

test('what cannot start ends with status 2 and one line: port in use, running twice, strange folders', async () => {
	const apart = { data_dir: path.join(world.dir, 'd2'), run_dir: path.join(world.dir, 'r2') };
	await startFails({ ...weir.settings, ...apart, listen: [`127.0.0.1:${weir.port}`] }, /in use/i);
	await startFails({ ...weir.settings, run_dir: path.join(world.dir, 'r3') }, /running|locked|in use|another/i);
	await startFails({ ...weir.settings, data_dir: path.join(world.dir, 'd3') }, /running|locked|in use|another/i);
	const foreign = net.createServer().listen(0, '127.0.0.1');
	await new Promise((resolve) => foreign.once('listening', resolve));
	await startFails({ ...weir.settings, ...apart, admin: { listen: `127.0.0.1:${foreign.address().port}` } }, /in use/i);
	foreign.close();
	writeFileSync(path.join(world.dir, 'afile'), '');
	await startFails({ ...weir.settings, ...apart, data_dir: path.join(world.dir, 'afile') }, /data_dir|afile/);
	assert.equal((await world.ask({ key: await weir.key('unharmed') })).status, 200, 'the running one is not disturbed');
});

test('a folder of another user is refused', { skip: process.getuid() !== 0 && 'only root can make one' }, async () => {
	const theirs = path.join(world.dir, 'theirs');
	mkdirSync(theirs);
	const { chownSync } = await import('node:fs');
	chownSync(theirs, 12345, 12345);
	await startFails({ ...weir.settings, data_dir: theirs, run_dir: path.join(world.dir, 'r4') }, /theirs|belongs/);
});

test('started as root, the workers run as another user', { skip: process.getuid() !== 0 && 'not root' }, async () => {
	const other = await World.open({ settings: { user: 'nobody' } });
	try {
		const uid = (pid) => Number(/^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
		const nobody = Number((await run('id', ['-u', 'nobody'])).stdout);
		assert.ok(other.weir.children().length >= 4);
		for (const pid of other.weir.children()) {
			await until(() => uid(pid) === nobody, 'it has become nobody');
			assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /^CapEff:\s+0+$/m);
			assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /^NoNewPrivs:\s+1$/m);
		}
		assert.equal((await other.ask({ key: await other.weir.key('k') })).status, 200);
		await other.weir.records(1);
		chmodSync(other.weir.configPath, 0o600);
		other.weir.signal('SIGHUP');	/* the master reads it, the workers need not */
		await until(async () => (await other.weir.metrics()).sum('weir_settings_version') === 2, 'the reload is done');
		assert.equal((await other.ask({ key: await other.weir.key('k2') })).status, 200);
	} finally {
		await other.close();
	}
});

test('without a file weir serves with safe defaults', async () => {
	const state = path.join(world.dir, 'state');
	const child = start(WEIR_BIN, ['serve', '--data-dir', path.join(state, 'd'), '--run-dir', path.join(state, 'r'), '--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0', '--workers', '1'],
		{ stdio: ['ignore', 'ignore', 'pipe'], env: { PATH: process.env.PATH, HOME: state } });
	const ended = new Promise((resolve) => child.once('exit', resolve));
	let said = '';
	child.stderr.on('data', (text) => { said += text; });
	try {
		const file = path.join(state, 'r', 'weir.json');
		const info = await until(() => existsSync(file) && JSON.parse(readFileSync(file, 'utf8')), `weir is ready: ${said}`);
		assert.equal(info.pid, child.pid);
		assert.ok(info.listeners.every((l) => l.address.startsWith('127.0.0.1:')));
		assert.equal(statSync(path.join(state, 'd')).mode & 0o077 & 0o007, 0, 'the store is not for everyone');
	} finally {
		child.kill('SIGTERM');
		assert.equal(await ended, 0);
	}
});

test('settings that send a request nowhere say so', async () => {
	const lost = await World.open({ settings: { providers: [] } });
	try {
		assert.match(refused(await lost.ask({ key: await lost.weir.key('k') }), 400, 'invalid_request_error'), /provider/);
	} finally {
		await lost.close();
	}
});
