// The world of an end-to-end test: a simulated provider or several accounts of
// it, the real weir in front of them, keys made by its command line, and a folder
// that is gone afterwards.
//
//	let world;
//	before(async () => { world = await World.open({ settings: {...} }); });
//	after(() => world.close());
//
// close() is a check too: weir must stop with status 0 within its deadline, its
// errors must not speak of a broken invariant, and no provider may have seen
// anything that a gateway has to keep to itself, or have come to an end.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { makeAuthority, makeCertificate } from './certificates.mjs';
import { Client, requestBytes, timely, until } from './client.mjs';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
export const WEIR_BIN = path.resolve(process.env.WEIR_BIN ?? path.join(ROOT, 'build/gateway/weir'));
export const API_KEY = 'sk-ant-simulated-account';
const READY_MS = 60000;
const STOP_MS = 60000;
const BROKEN = /AddressSanitizer|LeakSanitizer|runtime error:|ThreadSanitizer|CHECK failed|Assertion/;

/* What this process has started dies with it, however it ends: weir leads a
 * process group of its own, so nobody else would end it. */
const started = new Set();	/* children */
const runner = process.ppid;

function endStarted() {
	for (const child of started)
		try {
			process.kill(-child.pid, 'SIGKILL');
		} catch {
			/* it is gone already */
		}
}

process.on('exit', endStarted);
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'])
	process.on(signal, () => process.exit(1));
setInterval(() => { if (process.ppid !== runner) process.exit(1); }, 500).unref();

/** A child that leads a process group and does not outlive this process. */
export function start(program, args, options) {
	const child = spawn(program, args, { ...options, detached: true });
	if (child.pid !== undefined)
		started.add(child);
	child.once('exit', () => started.delete(child));
	return child;
}

/** Runs a program to its end: {code, stdout, stderr}. Never throws for a status. */
export function run(program, args, { input, env, timeout = 60000 } = {}) {
	return new Promise((resolve) => {
		const child = execFile(program, args, { timeout, maxBuffer: 256 << 20, env: { ...process.env, ...env } },
			(error, stdout, stderr) => resolve({ code: error ? error.code ?? `signal ${error.signal}` : 0, stdout, stderr }));
		if (input !== undefined)
			child.stdin.end(input);
	});
}

/** What a test found, on one line: for people, and for tests/bench/run. */
export function figures(name, values) {
	console.log(`# figures ${name} ${JSON.stringify(values)}`);
}

export class Provider {
	/** Starts one. {tls: {cert, key, ca, stranger: {cert, key}}, port, apiKey, account, prefix: of its paths} */
	static async start({ tls = null, port = 0, apiKey = API_KEY, account = 'main', prefix = '' } = {}) {
		const provider = new Provider();
		Object.assign(provider, { tls, account, apiKey, stopped: false });
		provider.child = start(process.execPath, [path.join(ROOT, 'tests/fake/provider.mjs'), '--port', String(port), '--api-key', apiKey, '--account', account,
			'--prefix', prefix, '--with-parent', ...(tls ? ['--tls', '--cert', tls.cert, '--key', tls.key] : []),
			...(tls?.stranger ? ['--stranger-cert', tls.stranger.cert, '--stranger-key', tls.stranger.key] : [])], { stdio: ['ignore', 'pipe', 'inherit'] });
		const ports = await new Promise((resolve, reject) => {
			provider.child.once('exit', (code) => reject(new Error(`the provider ended with ${code}`)));
			provider.child.stdout.once('data', (line) => resolve(JSON.parse(line)));
		});
		provider.port = ports.port;
		provider.controlPort = ports.control;
		provider.url = tls ? `https://localhost:${provider.port}` : `http://127.0.0.1:${provider.port}`;
		return provider;
	}

	async control(method, target, body) {
		const client = await Client.open({ port: this.controlPort });
		const answer = await client.exchange({ method, path: target, body: body === undefined ? undefined : JSON.stringify(body) });
		client.close();
		assert.equal(answer.status, 200, `provider: ${method} ${target}: ${answer.body}`);
		return JSON.parse(answer.body);
	}

	bill() { return this.control('GET', '/__bill'); }
	violations() { return this.control('GET', '/__violations'); }
	stats() { return this.control('GET', '/__stats'); }
	requests(last = 1000, bodies = false) { return this.control('GET', `/__requests?last=${last}${bodies ? '&bodies=1' : ''}`); }
	/** The newest request, bodies as buffers. */
	async last() {
		const [r] = await this.requests(1, true);
		return r && { ...r, body: Buffer.from(r.body_base64, 'base64'), sent: Buffer.from(r.sent_base64 ?? '', 'base64') };
	}
	script(...behaviours) { return this.control('POST', '/__script', { behaviours }); }
	/** All requests whose prompt has this label. */
	labelled(label) { return this.control('GET', `/__requests?last=1000000&label=${encodeURIComponent(label)}`); }
	/** It fails in that way until restore(); `script`: more members for the script of the outage. */
	outage(mode, script) { return this.control('POST', '/__outage', { mode, script }); }
	restore() { return this.outage(null); }
	byDefault(behaviour) { return this.control('POST', '/__script', { default: behaviour }); }
	release(gate) { return this.control('POST', '/__release', { gate }); }
	/** Waits until so many streams are held at gates. */
	held(count, ms) { return until(async () => (await this.stats()).held === count, `${count} streams are held`, ms, 30); }
	reset() { return this.control('POST', '/__reset', {}); }

	/** How it ended, if nobody stopped it; or null. */
	get ended() {
		return this.stopped ? null : this.child.exitCode ?? this.child.signalCode;
	}

	async stop() {
		this.stopped = true;
		if (this.child.exitCode !== null || this.child.signalCode !== null)
			return;
		const ended = new Promise((resolve) => this.child.once('exit', resolve));
		this.child.kill('SIGTERM');
		await ended;
	}
}

export class Weir {
	/** `settings` are written to weir.json as they are. */
	constructor(dir, settings) {
		this.dir = dir;
		this.settings = settings;
		this.configPath = path.join(dir, 'config.json');
		this.stderr = '';
		this.write(settings);
	}

	write(settings) {
		this.settings = settings;
		writeFileSync(this.configPath, JSON.stringify(settings, null, 2));
	}

	async start({ env = this.env ?? {}, args = [] } = {}) {
		this.env = env;
		this.process = start(WEIR_BIN, ['serve', '--config', this.configPath, ...args],
			{ stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ...env } });
		this.exited = new Promise((resolve) => this.process.once('exit', (code, signal) => resolve(code ?? signal)));
		this.exit = undefined;
		this.exited.then((status) => { this.exit = status; });
		this.process.on('error', (error) => { this.exit = error.message; });
		this.process.stderr.setEncoding('utf8').on('data', (text) => { this.stderr += text; });
		await until(() => this.#ready(), `weir is ready; it said:\n${this.stderr}`, READY_MS);
		return this;
	}

	async #ready() {
		if (this.exit !== undefined)
			throw new Error(`weir ended with ${this.exit}:\n${this.stderr}`);
		const info = this.info();
		if (!info || info.pid !== this.process.pid)
			return false;
		this.listeners = info.listeners.map((l) => ({ tls: l.tls, host: l.address.replace(/:\d+$/, ''), port: Number(l.address.match(/(\d+)$/)[1]) }));
		this.adminPort = Number(info.admin.match(/(\d+)$/)[1]);
		return (await this.readyz()) === 200;
	}

	info() {
		const file = path.join(this.settings.run_dir, 'weir.json');
		return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
	}

	async readyz() {
		const plain = this.listeners.find((l) => !l.tls && !l.host.startsWith('['));
		const target = plain ? { port: plain.port } : { port: this.listeners[0].port, tls: { rejectUnauthorized: false } };
		try {
			const client = await Client.open(target);
			const answer = await client.exchange({ method: 'GET', path: '/readyz' });
			client.close();
			return answer.status;
		} catch {
			return undefined;
		}
	}

	get port() { return this.listeners.find((l) => !l.tls && !l.host.startsWith('['))?.port; }
	get tlsPort() { return this.listeners.find((l) => l.tls)?.port; }
	get pid() { return this.process.pid; }

	/** Pids of this weir besides the master's. */
	children() {
		const list = readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, 'utf8').trim();
		return list === '' ? [] : list.split(' ').map(Number);
	}

	/** What a child is, told by what it has open: worker, keeper, admin, or null. */
	role(pid) {
		try {
			const open = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
			if (open.some((f) => f.endsWith('/writer.lock')))
				return 'keeper';
			if (open.some((f) => f.endsWith('/catalog/data.mdb')))
				return 'worker';
			return open.some((f) => f.includes('eventpoll')) ? 'admin' : null;
		} catch {
			return null;	/* it has just died */
		}
	}

	/** The pid of a child of that kind; one that has just begun is waited for. */
	child(kind) {
		return until(() => this.children().find((pid) => this.role(pid) === kind), `a process is the ${kind}`);
	}

	command(...args) {
		return run(WEIR_BIN, args, { env: this.env });
	}

	/** A key by the command line: {id, slug, secret, ...}. */
	async key(slug, ...args) {
		const made = await this.command('key', 'create', '--config', this.configPath, '--slug', slug, '--json', ...args);
		assert.equal(made.code, 0, `weir key create: ${made.stderr}`);
		return JSON.parse(made.stdout);
	}

	/** Records as `weir logs --json` prints them; `where` are "name=value". */
	async logs(...where) {
		const read = await this.command('logs', '--config', this.configPath, '--json', ...where.flatMap((w) => ['--where', w]));
		assert.equal(read.code, 0, `weir logs: ${read.stderr}`);
		return read.stdout.split('\n').filter((l) => l !== '').map((l) => JSON.parse(l));
	}

	/** Waits until `count` records that satisfy `where` are in the store. */
	records(count, ...where) {
		return until(async () => {
			const found = await this.logs(...where);
			assert.ok(found.length <= count, `${found.length} records instead of ${count}`);
			return found.length === count && found;
		}, `${count} records ${where.join(' ')}`, undefined, 50);
	}

	/** The one record of the request with that id. */
	async record(requestId) {
		const [record] = await this.records(1, `request_id=${requestId}`);
		return record;
	}

	/** Nano-dollars that the store says are spent of the key's (one) budget. */
	async spent(key) {
		const listed = await this.command('key', 'list', '--config', this.configPath, '--json');
		assert.equal(listed.code, 0, listed.stderr);
		const [budget] = JSON.parse(listed.stdout).find((k) => k.id === key.id).spent;
		return BigInt(budget.spent_nusd);
	}

	/** Waits until that is so: records reach the store a moment before levels do. */
	spends(key, nusd) {
		return until(async () => (await this.spent(key)) === nusd, `${key.slug} has spent ${nusd}`, undefined, 50);
	}

	async metrics() {
		const client = await Client.open({ port: this.adminPort });
		const answer = await client.exchange({ method: 'GET', path: '/metrics' });
		client.close();
		assert.equal(answer.status, 200);
		return new Metrics(answer.body.toString('utf8'));
	}

	signal(name) {
		process.kill(this.pid, name);
	}

	/** SIGTERM and what it says; throws if it does not end in time. */
	async stop(ms = STOP_MS) {
		if (this.exit === undefined)
			this.signal('SIGTERM');
		await until(() => this.exit !== undefined, `weir stops; it said:\n${this.stderr.slice(-3000)}`, ms);
		return this.exit;
	}

	/** Every process of it, at once. */
	kill() {
		if (!this.process?.pid)
			return;
		try {
			process.kill(-this.process.pid, 'SIGKILL');
		} catch (e) {
			if (e.code !== 'ESRCH')
				throw e;
		}
	}
}

export class Metrics {
	constructor(text) {
		this.text = text;
		this.samples = text.split('\n').filter((l) => l !== '' && !l.startsWith('#')).map((line) => {
			const match = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
			if (!match)
				throw new Error(`bad sample ${line}`);
			const labels = Object.fromEntries([...(match[2] ?? '').matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)].map((m) => [m[1], m[2]]));
			return { name: match[1], labels, value: Number(match[3]) };
		});
	}

	/** Sum of the samples of a name whose labels match. */
	sum(name, labels = {}) {
		return this.samples.filter((s) => s.name === name && Object.entries(labels).every(([k, v]) => s.labels[k] === String(v)))
			.reduce((n, s) => n + s.value, 0);
	}

	has(name) {
		return this.samples.some((s) => s.name === name);
	}
}

export class World {
	/**
	 * {settings: over the defaults, workers, tls: a TLS listener too,
	 *  providers: [{slug, account: its slug by default, tls: it speaks TLS, settings: more of it}, ...],
	 *  upstreamTls and providerSettings: of the one provider where there is no list,
	 *  start: false to start later}
	 *
	 * `providers` by slug; `provider` is the first of them.
	 */
	static async open({ settings = {}, workers = 2, tls = false, upstreamTls = false, start = true, providerSettings = {}, env,
		providers = [{ slug: 'anthropic', tls: upstreamTls, settings: providerSettings }] } = {}) {
		const world = new World();
		world.dir = mkdtempSync(path.join(os.tmpdir(), 'weir-e2e-'));
		chmodSync(world.dir, 0o755);
		try {
			if (tls || providers.some((p) => p.tls))
				world.makeCertificates();
			for (const spec of providers)
				world.providers[spec.slug] = await world.startProvider(spec, providers.length > 1);
			world.provider = world.providers[providers[0].slug];
			world.weir = new Weir(world.dir, world.defaults({ settings, workers, tls, providers }));
			if (start)
				await world.weir.start({ env });
		} catch (e) {
			await world.close({ failed: true });
			throw e;
		}
		return world;
	}

	providers = {};

	/** The stranger's certificate is the authority's too, but for another host. */
	makeCertificates() {
		this.authority = makeAuthority(this.dir);
		this.certificate = makeCertificate(this.dir, this.authority, 'server');
		this.stranger = makeCertificate(this.dir, this.authority, 'stranger', { names: 'DNS:elsewhere.example' });
	}

	/** Each of several has a credential of its own, so that one that goes to another is seen. */
	startProvider({ slug, account = slug, tls = false }, several) {
		return Provider.start({ account, apiKey: several ? `${API_KEY}-${slug}` : API_KEY,
			tls: tls ? { ...this.certificate, ca: this.authority.pem, stranger: this.stranger } : null });
	}

	providerSettings({ slug, account, tls = false, settings = {} }) {
		const { url, apiKey } = this.providers[slug];
		return { slug, type: 'anthropic', base_url: url, api_key: apiKey, ...(account ? { account } : {}), ...(tls ? { ca_file: this.authority.cert } : {}), ...settings };
	}

	defaults({ settings, workers, tls, providers }) {
		return {
			listen: ['127.0.0.1:0', ...(tls ? [{ address: '127.0.0.1:0', tls: true }] : [])],
			...(tls ? { tls: { certificate: this.certificate.cert, key: this.certificate.key } } : {}),
			admin: { listen: '127.0.0.1:0' }, data_dir: path.join(this.dir, 'data'), run_dir: path.join(this.dir, 'run'), workers,
			providers: providers.map((spec) => this.providerSettings(spec)),
			...settings,
		};
	}

	/** A connection to weir. {tls: true | options} */
	open({ tls = false, ...rest } = {}) {
		return Client.open({ port: tls ? this.weir.tlsPort : this.weir.port,
			tls: tls ? { ca: this.authority.pem, ...(tls === true ? {} : tls) } : null, ...rest });
	}

	/** One Messages request on a connection of its own. */
	async ask({ key, script, body, stream = false, headers = [], path: target, method, tls, mayBreak, deadlineMs } = {}) {
		const client = await this.open({ tls, deadlineMs });
		try {
			return await client.exchange(messageRequest({ key, script, body, stream, headers, path: target, method }), { mayBreak });
		} finally {
			client.close();
		}
	}

	async close({ failed = false, violations = [], status = 0 } = {}) {
		const problems = [];
		try {
			if (!failed && this.weir?.process && this.weir.exit === undefined) {
				const exit = await this.weir.stop().catch((e) => e.message);
				if (exit !== status)
					problems.push(`weir ended with ${exit}`);
			}
			if (!failed)
				problems.push(...await this.providersSaw(violations));
		} finally {
			this.weir?.kill();
			for (const provider of Object.values(this.providers))
				await provider.stop();
			rmSync(this.dir, { recursive: true, force: true });
		}
		const broken = this.weir?.stderr.match(BROKEN);
		if (broken)
			problems.push(`weir said:\n${this.weir.stderr.slice(Math.max(0, broken.index - 500), broken.index + 4000)}`);
		assert.deepEqual(problems, []);
	}

	/** What is wrong with the providers; those that the test has stopped cannot say. */
	async providersSaw(violations) {
		const problems = [], seen = [];
		for (const [slug, provider] of Object.entries(this.providers)) {
			if (provider.ended !== null)
				problems.push(`the provider ${slug} ended with ${provider.ended}`);
			else if (!provider.stopped)
				seen.push(...(await provider.violations()).map((v) => v.text));
		}
		if (JSON.stringify(seen) !== JSON.stringify(violations))
			problems.push(`the providers saw ${JSON.stringify(seen.slice(0, 10))}`);
		return problems;
	}
}

/** A Messages body whose prompt tells the provider what to do. */
export function messageBody({ script = {}, stream = false, ...rest } = {}) {
	return JSON.stringify({ model: 'claude-sonnet-5-5', max_tokens: 1024, stream,
		messages: [{ role: 'user', content: JSON.stringify({ fake: script }) }], ...rest });
}

export function messageRequest({ key, script, body, stream = false, headers = [], path: target = '/v1/messages', method = 'POST' } = {}) {
	const own = (name) => headers.some(([n]) => n.toLowerCase() === name);
	const wanted = [
		own('content-type') ? null : ['content-type', 'application/json'],
		own('anthropic-version') ? null : ['anthropic-version', '2023-06-01'],
		key === undefined || key === null ? null : ['x-api-key', key.secret ?? key],
	].filter(Boolean);
	return { method, path: target, headers: [...wanted, ...headers], body: body ?? messageBody({ script, stream }) };
}

/** The envelope of an error of weir's own, checked (C41). */
export function envelope(answer) {
	assert.match(answer.headers.get('content-type') ?? '', /^application\/json/);
	const body = JSON.parse(answer.body);
	assert.equal(body.type, 'error');
	assert.equal(typeof body.error.type, 'string');
	assert.equal(typeof body.error.message, 'string');
	assert.match(body.request_id, /^req_/);
	assert.equal(body.request_id, answer.headers.get('request-id'));
	return body.error;
}

/** Refused by weir with this status and type; returns the message. */
export function refused(answer, status, type) {
	assert.equal(answer.status, status, answer.body.toString());
	const error = envelope(answer);
	assert.equal(error.type, type, error.message);
	return error.message;
}

/** Runs `count` jobs, at most `width` at a time; results in order. */
export async function parallel(count, width, job) {
	const results = new Array(count);
	let next = 0;
	await Promise.all(Array.from({ length: Math.min(width, count) }, async () => {
		while (next < count) {
			const i = next++;
			results[i] = await job(i);
		}
	}));
	return results;
}

export { Client, requestBytes, timely, until };
