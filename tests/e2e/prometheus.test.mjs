// /metrics, judged by Prometheus itself.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { Client, World, run, start, until } from './harness.mjs';

let world, key;

before(async () => {
	world = await World.open();
	key = await world.weir.key('prometheus', '--rpm', '1000', '--budget', '5');
	for (let i = 0; i < 10; i++)
		await world.ask({ key, stream: i % 2 === 0 });
	await world.ask({ key, script: { error: 'overloaded' } });
	await world.ask({ key: 'nobody' });
	await world.ask({ key, body: '{' });
});
after(() => world.close());

const admin = async (method, target) => {
	const client = await Client.open({ port: world.weir.adminPort });
	const answer = await client.exchange({ method, path: target });
	client.close();
	return answer;
};

test('promtool check metrics has nothing to say', async () => {
	const { text } = await world.weir.metrics();
	const checked = await run('promtool', ['check', 'metrics'], { input: text });
	assert.equal(checked.code, 0, checked.stdout + checked.stderr);
	assert.equal(checked.stdout + checked.stderr, '');
});

test('what the endpoint says of itself', async () => {
	const answer = await admin('GET', '/metrics');
	assert.match(answer.headers.get('content-type'), /^text\/plain; ?version=0\.0\.4/);
	for (const target of ['/healthz', '/readyz'])
		assert.equal((await admin('GET', target)).status, 200, target);
	assert.equal((await admin('GET', '/nothing')).status, 404);
	assert.ok([404, 405].includes((await admin('POST', '/metrics')).status));
	assert.equal((await admin('HEAD', '/metrics')).body.length, 0);
});

test('the numbers are those of the requests', async () => {
	const metrics = await world.weir.metrics();
	assert.equal(metrics.sum('weir_requests_total', { route: 'messages', status: 200, provider: 'anthropic' }), 10);
	assert.equal(metrics.sum('weir_requests_total', { route: 'messages', status: 529 }), 1);
	assert.equal(metrics.sum('weir_requests_total', { route: 'messages', status: 401 }), 1);
	assert.equal(metrics.sum('weir_requests_total', { route: 'messages', status: 400 }), 1);
	assert.equal(metrics.sum('weir_refused_requests_total', { reason: 'authentication' }), 1);
	const bill = BigInt((await world.provider.bill()).total_nusd);
	assert.equal(metrics.sum('weir_cost_dollars_total').toFixed(9), (Number(bill) / 1e9).toFixed(9));
	for (const name of ['weir_request_duration_seconds', 'weir_upstream_duration_seconds', 'weir_upstream_first_byte_seconds', 'weir_overhead_seconds']) {
		const count = metrics.sum(`${name}_count`);
		assert.ok(count >= 11, name);
		assert.equal(metrics.sum(`${name}_bucket`, { le: '+Inf' }), count, name);
		const buckets = metrics.samples.filter((s) => s.name === `${name}_bucket`).map((s) => s.value);
		assert.deepEqual(buckets, [...buckets].sort((a, b) => a - b), 'buckets are cumulative');
	}
	assert.ok(metrics.sum('weir_process_up') >= 4, 'master, keeper, admin, workers');
	for (const name of ['weir_ring_fill_ratio', 'weir_arena_bytes', 'weir_arena_meters', 'weir_process_restarts_total', 'weir_build_info'])
		assert.ok(metrics.has(name), name);
});

test('a real Prometheus scrapes it', async () => {
	const port = await new Promise((resolve) => {
		const probe = net.createServer().listen(0, '127.0.0.1', () => { const { port } = probe.address(); probe.close(() => resolve(port)); });
	});
	const config = path.join(world.dir, 'prometheus.yml');
	writeFileSync(config, `global: {scrape_interval: 1s}\nscrape_configs: [{job_name: weir, static_configs: [{targets: ["127.0.0.1:${world.weir.adminPort}"]}]}]\n`);
	const server = start('prometheus', [`--config.file=${config}`, `--storage.tsdb.path=${path.join(world.dir, 'tsdb')}`, `--web.listen-address=127.0.0.1:${port}`,
		'--log.level=warn'], { stdio: ['ignore', 'ignore', 'pipe'] });
	let said = '';
	server.stderr.on('data', (text) => { said += text; });
	try {
		const query = async (expression) => {
			const client = await Client.open({ port });
			const answer = await client.exchange({ method: 'GET', path: `/api/v1/query?query=${encodeURIComponent(expression)}` });
			client.close();
			return JSON.parse(answer.body).data?.result?.[0]?.value[1];
		};
		const ask = (expression) => until(() => query(expression).catch(() => undefined), `${expression}; it said ${said}`, undefined, 200);
		assert.equal(await ask('up{job="weir"}'), '1');
		assert.equal(await ask('sum(weir_requests_total{route="messages",status="200"})'), '10');
		assert.ok(Number(await ask('histogram_quantile(0.99, sum by (le) (weir_request_duration_seconds_bucket))')) > 0);
	} finally {
		const ended = new Promise((resolve) => server.once('exit', resolve));
		server.kill('SIGTERM');
		await ended;
	}
});
