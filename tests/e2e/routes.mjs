// What the tests of routing share: configs in few words, a request that is
// followed to all accounts, what an answer says of its way, conversations, and
// the books of several providers against one ledger.
//
// A request is known by its label, which its prompt carries: so many may be on
// their way at once, and each account still says which of its were this one.

import assert from 'node:assert/strict';

import Anthropic from '@anthropic-ai/sdk';

import { sha256 } from '../fake/memory.mjs';
import { withoutPings } from './client.mjs';
import { messageBody, until } from './harness.mjs';

export const MODEL = 'claude-sonnet-5-5';

/** Settings under which no account is left out for long: for tests of something else. */
export const HARDY = { health: { failures: 0, failure_percent: 0, cooldown_ms: 10, cooldown_max_ms: 10, account_ms: 10 } };

/* ---- configs ---- */

/** A target by its slug; what is no text is a config of its own. */
export const target = (of, rest = {}) => (typeof of === 'string' ? { provider: `@${of}`, ...rest } : of);
const walkOf = (mode) => (targets, strategy = {}, rest = {}) => ({ strategy: { mode, ...strategy }, targets: targets.map((t) => target(t)), ...rest });
export const fallback = walkOf('fallback');
export const loadbalance = walkOf('loadbalance');
export const conditional = walkOf('conditional');
export const inline = (config) => ['x-portkey-config', JSON.stringify(config)];
export const saved = (slug) => ['x-portkey-config', slug];

/* ---- one request ---- */

let number = 0;
export const newLabel = () => `r${process.pid}-${++number}`;

/** What an answer says of its way. */
export function routeOf(answer) {
	const header = (name) => answer.headers.get(name) ?? null, count = (name) => (header(name) === null ? null : Number(header(name)));
	return {
		index: header('x-portkey-last-used-option-index'), retries: count('x-portkey-retry-attempt-count'), name: header('x-portkey-provider'),
		cache: header('x-portkey-cache-status'), slug: header('x-weir-provider'), model: header('x-weir-model'), attempts: count('x-weir-attempts'),
		config: header('x-weir-config'), id: header('x-weir-request-id'),
	};
}

/** Where the requests of a label went: {hits: {slug: count}, at: {slug: requests}}. */
export async function followed(world, label) {
	const hits = {}, at = {};
	for (const [slug, provider] of Object.entries(world.providers)) {
		at[slug] = await provider.labelled(label);
		if (at[slug].length > 0)
			hits[slug] = at[slug].length;
	}
	return { hits, at };
}

/** A body whose prompt has that label and script; `body`: more members of it. */
export const labelled = (label, { script = {}, stream = false, body = {} } = {}) => messageBody({ stream, script: { ...script, label }, ...body });

/** One request, followed: {label, answer, route, hits, at}. `text`: the body as it is. */
export async function walk(world, { key, config, headers = [], script, stream, body, text, label = newLabel(), ...rest }) {
	const answer = await world.ask({ key, headers: [...(config ? [inline(config)] : []), ...headers], body: text ?? labelled(label, { script, stream, body }), ...rest });
	return { label, answer, route: answer && routeOf(answer), ...await followed(world, label) };
}

/** The answer is, byte for byte, the last one that this account gave to the request. */
export function isAnswerOf({ answer, at }, slug) {
	const last = at[slug].at(-1);
	assert.ok(last, `${slug} was not asked`);
	assert.equal(answer.status, last.status);
	assert.equal(answer.headers.get('request-id'), last.id);
	assert.equal(sha256(withoutPings(answer.body)), last.sent_sha256, answer.body.toString().slice(0, 300));
}

export const recordOf = (world, answer) => world.weir.record(answer.headers.get('x-weir-request-id'));

/** What the accounts bill for a label, in nano-dollars. */
export const billed = (at) => Object.values(at).flat().reduce((n, r) => n + BigInt(r.cost_nusd), 0n);

/* ---- accounts that fail ---- */

/** Sets the outage of each account that is named; the others are well. */
export async function outages(world, modes = {}) {
	for (const [slug, provider] of Object.entries(world.providers))
		await provider.outage(modes[slug] ?? null);
}

/** All accounts are well, and weir asks each of them again. */
export async function heal(world, key) {
	await outages(world);
	for (const slug of Object.keys(world.providers)) {
		const others = Object.keys(world.providers).filter((s) => s !== slug);
		await until(async () => (await walk(world, { key, config: fallback([slug, ...others]) })).route.slug === slug, `${slug} is asked again`, undefined, 50);
	}
}

/* ---- clients ---- */

/** An SDK client that tries once; headers are pairs. */
export const sdk = (world, key, headers = [], options = {}) => new Anthropic({ baseURL: `http://127.0.0.1:${world.weir.port}`, apiKey: key.secret, maxRetries: 0,
	timeout: 120000, defaultHeaders: Object.fromEntries(headers), ...options });

/**
 * A conversation as a coding agent has it: thinking, a tool call, its result,
 * and so on; after three rounds of tools words, and the next question. `mark`: with cache marks on the system prompt and the last block.
 */
export class Conversation {
	constructor(client, { script = {}, thinking = { type: 'adaptive' }, userId, mark = false, system = 'You are careful.', ...params } = {}) {
		this.label = newLabel();
		this.client = client;
		this.mark = mark;
		this.thinking = thinking;
		this.system = [{ type: 'text', text: system, ...(mark ? { cache_control: { type: 'ephemeral' } } : {}) }];
		this.params = { model: MODEL, max_tokens: 4096, ...(userId ? { metadata: { user_id: userId } } : {}), ...params };
		const prompt = JSON.stringify({ fake: { events: 1, thinking: thinking ? 2 : 0, tool: { name: 'look', input: { at: 1 }, pieces: 2 }, rounds: 3, ...script, label: this.label } });
		this.messages = [{ role: 'user', content: [{ type: 'text', text: prompt }] }];
		this.turns = 0;
	}

	/** The request that is next. */
	body() {
		const messages = this.mark ? this.messages.map((m, i) => (i === this.messages.length - 1
			? { ...m, content: m.content.map((b, j) => (j === m.content.length - 1 ? { ...b, cache_control: { type: 'ephemeral' } } : b)) } : m)) : this.messages;
		return { ...this.params, ...(this.thinking ? { thinking: this.thinking } : {}), system: this.system, messages };
	}

	/** One turn: {message, route}; throws what the SDK throws, and then the turn can be tried again. */
	async turn(options) {
		const stream = this.client.beta.messages.stream(this.body(), options);
		const { response } = await stream.withResponse();
		const message = await stream.finalMessage();
		this.turns++;
		this.messages.push({ role: 'assistant', content: message.content }, { role: 'user', content: this.reply(message.content) });
		if (message.container)
			this.params.container = message.container.id;
		return { message, route: routeOf({ headers: response.headers }) };
	}

	/** Results for all tools of the answer, or a word. */
	reply(content) {
		const results = content.filter((b) => b.type === 'tool_use').map((b) => ({ type: 'tool_result', tool_use_id: b.id, content: `seen at turn ${this.turns}` }));
		return results.length > 0 ? results : [{ type: 'text', text: `and then? (${this.turns})` }];
	}
}

/* ---- the books ---- */

/** Waits until nothing is in flight anywhere: at the accounts, and in the ledger. */
export async function settled(world) {
	for (const [slug, provider] of Object.entries(world.providers))
		await until(async () => (await provider.stats()).in_flight === 0, `${slug} is idle`, undefined, 50);
	await until(async () => {
		const now = await world.weir.metrics().catch(() => null);
		return now && now.sum('weir_requests_in_flight') === 0 && now.sum('weir_budget_held_dollars') === 0;
	}, 'nothing is in flight, nothing is held', undefined, 50);
}

/** The bills of all accounts by label: label -> {cost, requests: [{slug, status, cost_nusd}]}. */
export async function bills(world) {
	const by = new Map();
	for (const [slug, provider] of Object.entries(world.providers))
		for (const request of (await provider.bill()).requests) {
			const bill = by.get(request.label) ?? { cost: 0n, requests: [] };
			bill.cost += BigInt(request.cost_nusd);
			bill.requests.push({ slug, ...request });
			by.set(request.label, bill);
		}
	return by;
}

/** The tries of a record in short: "a 529, b 200". */
export const triesOf = (record) => record.tries.map((t) => `${t.provider} ${t.status}`).join(', ');
