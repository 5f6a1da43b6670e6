// Where a config or a request may send a request: not to what only this machine
// can reach, not with a stored credential to a stranger, and not by a name that
// has become an address of that kind.

import assert from 'node:assert/strict';
import dns from 'node:dns/promises';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import { after, before, describe, test } from 'node:test';

import { Provider, World, messageBody, refused } from './harness.mjs';
import { HARDY, fallback, inline, isAnswerOf, recordOf, saved, target, walk } from './routes.mjs';

const CUSTOM_KEY = 'sk-ant-of-the-custom-host';
let world, key, trusting, trustingKey, strange;

before(async () => {
	world = await World.open({ providers: [{ slug: 'a' }, { slug: 'b' }], settings: HARDY });
	key = await world.weir.key('hosts');
	strange = await Provider.start({ apiKey: CUSTOM_KEY, account: 'strange' });
	trusting = await World.open({ providers: [{ slug: 'a' }, { slug: 'b' }], start: false });
	const { settings } = trusting.weir;
	trusting.weir.write({ ...settings, ...HARDY, custom_hosts: { trusted: ['127.0.0.1', 'metadata.google.internal', '169.254.169.254'] },
		configs: [{ slug: 'pc-hosted', config: target('a', { custom_host: `${trusting.providers.b.url}/v1` }) }] });
	await trusting.weir.start();
	trustingKey = await trusting.weir.key('hosts');
});
after(async () => {
	await strange.stop();
	try {
		await trusting.close();
	} finally {
		await world.close();
	}
});

const port = () => strange.port;
/* Each is refused as it is written, whatever it may lead to; with TLS, so that it is for the host. */
const HOSTS = {
	'this machine': [() => `https://127.0.0.1:${port()}`, () => `https://localhost:${port()}`, () => `https://[::1]:${port()}`, () => `https://0.0.0.0:${port()}`, () => `https://[::]:${port()}`, () => `https://127.9.8.7:${port()}`],
	'the same in another spelling': [() => `https://2130706433:${port()}`, () => `https://0x7f000001:${port()}`, () => `https://0x7f.1:${port()}`, () => `https://0177.0.0.1:${port()}`, () => `https://127.1:${port()}`,
		() => `https://[::ffff:127.0.0.1]:${port()}`, () => `https://[::ffff:7f00:1]:${port()}`, () => `https://[64:ff9b::7f00:1]:${port()}`, () => `https://localhost.:${port()}`, () => `https://LOCALHOST:${port()}`],
	'private networks': ['https://10.0.0.1', 'https://172.16.3.4', 'https://172.31.255.255', 'https://192.168.1.1', 'https://100.64.0.1', 'https://198.18.0.1', 'https://224.0.0.1', 'https://[fc00::1]', 'https://[fe80::1]'],
	'names of private networks': ['https://db.internal', 'https://printer.local', 'https://x.lan', 'https://x.home', 'https://x.corp', 'https://x.intranet', 'https://x.localhost', 'https://x.test', 'https://x.onion'],
	'metadata services': ['https://169.254.169.254/latest/meta-data', 'https://169.254.170.2', 'https://100.100.100.200', 'https://168.63.129.16', 'https://metadata.google.internal', 'https://metadata', 'https://instance-data', 'https://[fd00:ec2::254]'],
	'what is no host': ['https://user:pw@llm.example.com', 'ftp://llm.example.com', 'llm.example.com', 'https://', 'https://a..b', 'https://llm.example.com:0', 'https://llm.example.com:99999', 'https://%6c.example.com',
		'https://l\u00e9m.example.com', `https://${'a.'.repeat(12)}com`, `https://${'x'.repeat(2100)}.com`, 'https://llm.example.com /'],
};

describe('as it is written', () => {
	for (const [kind, hosts] of Object.entries(HOSTS))
		test(`${kind}: refused, by config and by header, and nobody is asked`, async () => {
			for (const each of hosts) {
				const host = typeof each === 'function' ? each() : each;
				const printable = /^[\x20-\x7e]*$/.test(host);
				for (const way of [{ config: target('a', { custom_host: host }) }, { config: fallback(['b', target('a', { custom_host: host })]) },
					...(printable ? [{ headers: [['x-portkey-provider', '@a'], ['x-portkey-custom-host', host]] }] : [])]) {
					const seen = await walk(world, { key, ...way });
					assert.match(refused(seen.answer, 400, 'invalid_request_error'), /custom.host/i, host);
					assert.deepEqual(seen.hits, {}, host);
				}
			}
			assert.equal((await strange.stats()).opened, 0, 'no connection was made');
		});

	test('weir check says the same of a saved config, with its path', async () => {
		const { settings, configPath } = world.weir;
		for (const host of ['http://127.0.0.1:1', 'http://169.254.169.254', 'http://10.0.0.1']) {
			world.weir.write({ ...settings, configs: [{ slug: 'pc-x', config: fallback(['b', target('a', { custom_host: host })]) }] });
			const checked = await world.weir.command('check', configPath);
			assert.equal(checked.code, 2);
			assert.match(checked.stdout + checked.stderr, /configs\[0\]\.config\.targets\[1\]\.custom_host: /);
		}
		world.weir.write(settings);
	});
});

test('a credential of a saved config does not go to a host of the request', async () => {
	const hosted = await World.open({ providers: [{ slug: 'a' }], settings: { configs: [{ slug: 'pc-secret', config: target('a', { api_key: 'sk-ant-of-the-operator' }) }] } });
	try {
		const why = refused(await hosted.ask({ key: await hosted.weir.key('hosts'), headers: [saved('pc-secret'), ['x-portkey-custom-host', 'https://no-such-host.example.com']] }), 400, 'invalid_request_error');
		assert.match(why, /stored credential/);
	} finally {
		await hosted.close();
	}
});

describe('trusted hosts', () => {
	test('a saved config goes there, with the credential of its account', async () => {
		const seen = await walk(trusting, { key: trustingKey, headers: [saved('pc-hosted')] });
		assert.equal(seen.answer.status, 401, 'which is not the custom host\'s');
		assert.deepEqual(seen.hits, {});
		const { headers, target: path, id } = await trusting.providers.b.last();
		assert.equal(seen.answer.headers.get('request-id'), id);
		assert.equal(path, '/v1/messages');
		assert.equal(headers.find(([n]) => n.toLowerCase() === 'x-api-key')[1], trusting.providers.a.apiKey);
		await trusting.providers.b.reset();
	});

	test('an inline config too, and a header before it', async () => {
		for (const way of [{ config: target('b', { custom_host: `${trusting.providers.b.url}/v1` }) },
			{ config: target('b', { custom_host: 'http://127.0.0.1:1/v1' }), headers: [['x-portkey-custom-host', `${trusting.providers.b.url}/v1`]] }]) {
			const seen = await walk(trusting, { key: trustingKey, ...way });
			isAnswerOf(seen, 'b');
			assert.equal(seen.answer.status, 200);
		}
	});

	test('with a credential of its own it needs none that is stored', async () => {
		const before = (await strange.stats()).requests;
		const seen = await walk(trusting, { key: trustingKey, config: { provider: 'anthropic', api_key: CUSTOM_KEY, custom_host: `${strange.url}/v1` } });
		assert.equal(seen.answer.status, 200, seen.answer.body.toString());
		assert.equal((await strange.stats()).requests, before + 1);
		assert.deepEqual(await strange.violations(), [], 'no header of another account');
	});

	test('a metadata service is never trusted', async () => {
		for (const host of ['http://169.254.169.254/v1', 'http://metadata.google.internal/v1', 'http://[::ffff:169.254.169.254]/v1']) {
			const seen = await walk(trusting, { key: trustingKey, config: target('a', { custom_host: host }) });
			assert.match(refused(seen.answer, 400, 'invalid_request_error'), /custom.host/i, host);
		}
	});
});

/** Names that look like any other and lead to this machine: {name, address}. */
async function misleading() {
	const found = [];
	for (const name of ['ip6-localhost', 'ip6-loopback', os.hostname().toLowerCase()]) {
		const addresses = await dns.lookup(name, { all: true }).catch(() => []);
		const [local] = addresses.filter(({ address }) => /^(127\.|10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|::1$|f[cd])/.test(address));
		if (local && addresses.length === 1 && /^[a-z0-9-]+$/.test(name) && name !== 'localhost')
			found.push({ name, ...local });
	}
	return found;
}

test('a name is judged again by its address, when it is connected to', async (t) => {
	const names = await misleading();
	if (names.length === 0)
		return t.skip('no name on this machine leads to a private address');
	for (const { name, address } of names) {
		let connections = 0;
		const listener = net.createServer((socket) => { connections++; socket.destroy(); });
		await new Promise((resolve, reject) => listener.once('error', reject).listen({ host: address, port: 0 }, resolve));
		try {
			for (const config of [target('a', { custom_host: `https://${name}:${listener.address().port}/v1` }), { provider: 'anthropic', api_key: 'k', custom_host: `https://${name}:${listener.address().port}/v1` }]) {
				const seen = await walk(world, { key, config });
				assert.ok(seen.answer.status >= 400, `${name}: ${seen.answer.status}`);
				assert.deepEqual(seen.hits, {});
			}
			const next = await walk(world, { key, config: fallback([target('a', { custom_host: `https://${name}:${listener.address().port}/v1` }), 'b']) });
			assert.equal(next.at.a.length, 0);
			assert.equal(connections, 0, `${name} is ${address}`);
		} finally {
			await new Promise((resolve) => listener.close(resolve));
		}
	}
	return undefined;
});

test('what a host of the request counts is not believed: a hold would be as small as it likes', async () => {
	const asked = [], liar = http.createServer((request, response) => {
		asked.push(request.url);
		response.setHeader('content-type', 'application/json');
		request.resume().on('end', () => response.end('{"input_tokens":1}'));
	});
	await new Promise((resolve) => liar.listen(0, '127.0.0.1', resolve));
	const lied = await World.open({ workers: 1, providers: [{ slug: 'a' }], settings: { ...HARDY, custom_hosts: { trusted: ['127.0.0.1'] } } });
	try {
		const own = await lied.weir.key('lied', '--budget', '0.6');
		const body = messageBody({ max_tokens: 100, messages: [{ role: 'user', content: 'word '.repeat(60000) }] });
		const config = { provider: '@a', api_key: 'k', custom_host: `http://127.0.0.1:${liar.address().port}/v1` };
		refused(await lied.ask({ key: own, headers: [inline(config)], body }), 429, 'billing_error');
		assert.deepEqual(asked, []);
		const answer = await lied.ask({ key: own, body }), record = await recordOf(lied, answer);
		assert.equal(answer.status, 200, answer.body.toString());
		assert.ok(record.flags.includes('counted') && record.held_nusd >= record.cost_nusd && record.cost_nusd > 100_000_000, JSON.stringify([record.flags, record.held_nusd, record.cost_nusd]));
	} finally {
		await lied.close();
		liar.closeAllConnections();
		await new Promise((resolve) => liar.close(resolve));
	}
});

test('a request that may bring nothing of its own brings no host', async () => {
	const strict = await World.open({ providers: [{ slug: 'a' }], settings: { saved_configs_only: true, custom_hosts: { trusted: ['127.0.0.1'] }, configs: [{ slug: 'pc-a', config: target('a') }] } });
	try {
		const own = await strict.weir.key('strict');
		for (const headers of [[inline(target('a', { custom_host: strange.url }))], [saved('pc-a'), ['x-portkey-custom-host', strange.url]], [inline(target('a'))]])
			refused(await strict.ask({ key: own, headers }), 400, 'invalid_request_error');
		assert.equal((await strict.ask({ key: own, headers: [saved('pc-a')] })).status, 200);
	} finally {
		await strict.close();
	}
});
