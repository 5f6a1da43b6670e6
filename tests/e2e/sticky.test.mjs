// A conversation stays with the account that has its state: signed thinking,
// containers, files, a warm prompt cache. It moves only when it must, and then
// without what the other account could not understand; or it is refused in words.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { World, figures, messageBody, messageRequest, parallel, refused, until } from './harness.mjs';
import { Conversation, HARDY, fallback, followed, heal, inline, isAnswerOf, loadbalance, recordOf, routeOf, sdk, target, walk } from './routes.mjs';

const TURNS = 20;
let world, key;

before(async () => {
	world = await World.open({ workers: 4, providers: [{ slug: 'a' }, { slug: 'b' }], settings: HARDY });
	key = await world.weir.key('sticky');
});
after(() => world.close());

const balanced = loadbalance(['a', 'b']), ordered = fallback(['a', 'b']);

/** The accounts that a conversation's requests reached. */
const homes = async (talk) => Object.keys((await followed(world, talk.label)).hits);

/* How weir can know that requests are of one conversation. */
const WAYS = [['the session header', (i) => ({ headers: [['x-claude-code-session-id', `session-${i}`]] })],
	['the user id', (i) => ({ talk: { userId: `user_1_account__session_${i}` } })], ['its beginning', () => ({})]];

describe('twenty turns with thinking and tools', { concurrency: true }, () => {
	for (const [name, way] of WAYS)
		for (const thinking of [{ type: 'adaptive' }, { type: 'enabled', budget_tokens: 1024 }])
			test(`${name}, thinking ${thinking.type}: each conversation has one account, all together have both`, async () => {
				const seen = await parallel(8, 8, async (i) => {
					const { headers = [], talk = {} } = way(`${thinking.type}-${i}`);
					const conversation = new Conversation(sdk(world, key, [inline(balanced), ...headers]), { thinking, ...talk });
					for (let turn = 0; turn < TURNS; turn++)
						await conversation.turn();	/* an account that did not make the thinking would refuse it */
					const { hits } = await followed(world, conversation.label);
					assert.deepEqual(Object.values(hits), [TURNS], JSON.stringify(hits));
					return Object.keys(hits)[0];
				});
				if (new Set(seen).size === 1) {	/* by chance once in 128: more of them decide */
					const more = await parallel(32, 8, async (i) => {
						const { headers = [], talk = {} } = way(`${thinking.type}-more-${i}`);
						const conversation = new Conversation(sdk(world, key, [inline(balanced), ...headers]), { thinking, ...talk });
						return (await conversation.turn()).route.slug;
					});
					assert.equal(new Set([...seen, ...more]).size, 2);
				}
			});
});

test('cache marks that move and a system prompt with a date do not make it another conversation', async () => {
	const talks = await parallel(6, 6, async () => {
		const talk = new Conversation(sdk(world, key, [inline(balanced)]), { mark: true });
		for (let turn = 0; turn < 6; turn++) {
			talk.system[0].text = `You are careful. It is ${turn} o'clock.`;
			await talk.turn();
		}
		return homes(talk);
	});
	for (const home of talks)
		assert.equal(home.length, 1);
});

test('hash_fields say what a conversation is', async () => {
	const config = loadbalance(['a', 'b'], { sticky: { enabled: true, hash_fields: ['metadata.team'] } });
	const slugs = new Set();
	for (let team = 0; team < 12; team++) {
		const of = new Set();
		for (let i = 0; i < 4; i++)	/* other labels, other sessions: one team */
			of.add((await walk(world, { key, config, headers: [['x-portkey-metadata', JSON.stringify({ team: `t${team}` })], ['x-claude-code-session-id', `s${i}`]] })).route.slug);
		assert.equal(of.size, 1, `team ${team}`);
		slugs.add([...of][0]);
	}
	assert.equal(slugs.size, 2);
});

describe('the account of a conversation dies', () => {
	for (const thinking of [{ type: 'adaptive' }, { type: 'enabled', budget_tokens: 1024 }])
		for (const mode of ['refused', 'internal', 'overloaded_started'])
			test(`${mode}, thinking ${thinking.type}: the turn goes on elsewhere, without the thinking that only it understood`, async () => {
				const talk = new Conversation(sdk(world, key, [inline(ordered)]), { thinking });
				for (let turn = 0; turn < 6; turn++)	/* three rounds of tools, words, and two rounds */
					assert.equal((await talk.turn()).route.slug, 'a');
				const own = talk.messages.filter((m) => m.role === 'assistant').flatMap((m) => m.content.filter((b) => b.type === 'thinking').map((b) => b.signature));
				await world.providers.a.outage(mode);
				const { message, route } = await talk.turn();
				assert.equal(route.slug, 'b');
				assert.ok(message.content.some((b) => b.type === 'tool_use'));
				const moved = JSON.parse((await world.providers.b.last()).body), sent = JSON.stringify(moved);
				assert.equal(own.length, 6);
				for (const signature of own)
					assert.ok(!sent.includes(signature), 'a signature of the other account');
				assert.ok(moved.messages.every((m) => m.content.length > 0), 'no turn is empty');
				assert.equal(moved.messages.length, 13, 'no turn is lost');
				assert.equal(moved.messages.filter((m) => m.role === 'assistant' && m.content.some((b) => b.type === 'tool_use')).length, 5, 'tools stay');
				if (thinking.type === 'enabled')
					assert.equal(moved.thinking.type, 'disabled', 'in the middle of a tool loop it would be demanded');

				/* While it is away the conversation stays where it is now. Its client still
				 * sends what the first account has thought, between what this one thinks. */
				for (let turn = 0; turn < 4; turn++)
					assert.equal((await talk.turn()).route.slug, 'b');
				assert.ok(own.every((signature) => JSON.stringify(talk.body()).includes(signature)));
				await heal(world, key);

				/* And when it is back, nothing is refused, wherever the turns go. */
				for (let turn = 0; turn < 6; turn++)
					await talk.turn();
			});

	test('load balancing: its conversations move, the others do not notice, and new ones avoid it', async () => {
		const other = await World.open({ workers: 4, providers: [{ slug: 'a' }, { slug: 'b' }], settings: { health: { failures: 2, cooldown_ms: 3600000, cooldown_max_ms: 3600000 } } });
		try {
			const own = await other.weir.key('moving');
			const talks = Array.from({ length: 12 }, () => new Conversation(sdk(other, own, [inline(balanced)], { maxRetries: 6 })));
			const first = await Promise.all(talks.map(async (t) => (await t.turn()).route.slug));
			await Promise.all(talks.map((t) => t.turn()));
			await other.providers.a.outage('refused');
			for (let turn = 0; turn < 3; turn++) {
				const now = await Promise.all(talks.map(async (t) => (await t.turn()).route.slug));
				assert.deepEqual(now, Array(12).fill('b'));
			}
			assert.ok(new Set(first).size === 2, 'both had some');
			assert.equal((await new Conversation(sdk(other, own, [inline(balanced)])).turn()).route.slug, 'b');
		} finally {
			await other.close();
		}
	});
});

/* State that cannot be left behind: what the first turn makes, and how the next one speaks of it. */
const BOUND = [
	['a container', { container: true }, (m) => ({ container: m.container.id }), /container/i],
	['a container by object', { container: true }, (m) => ({ container: { id: m.container.id } }), /container/i],
	['a file', { container: true }, (m) => ({ messages: [{ role: 'user', content: [{ type: 'container_upload', file_id: m.content.find((b) => b.type === 'bash_code_execution_tool_result').content.content[0].file_id },
		{ type: 'text', text: 'read it' }] }] }), /file/i],
	['search results', { results: 2 }, () => ({}), /search|encrypted/i],
	['a compaction', { compaction: true }, () => ({}), /compaction|encrypted/i],
];

describe('what cannot be left behind', () => {
	for (const [name, script, more, words] of BOUND)
		test(`${name}: a clear refusal instead of the wrong account, and it goes on when its own is back`, async () => {
			const client = sdk(world, key, [inline(ordered), ['x-claude-code-session-id', `bound ${name}`]]);
			const talk = new Conversation(client, { thinking: null, script: { tool: undefined, ...script } });
			const { message, route } = await talk.turn();
			assert.equal(route.slug, 'a');
			const body = { ...talk.body(), container: undefined, ...more(message) };
			if (body.messages.length === 1)	/* the label of the conversation */
				body.messages = [talk.messages[0], { role: 'assistant', content: [{ type: 'text', text: 'x' }] }, ...body.messages];
			const send = () => world.ask({ key, headers: [inline(ordered), ['x-claude-code-session-id', `bound ${name}`]], body: JSON.stringify(body) });
			await world.providers.a.outage('internal');
			const answer = await send();
			assert.ok(answer.status >= 400, `${answer.status}`);
			const { hits } = await followed(world, talk.label);
			assert.equal(hits.b, undefined, 'the other account was not asked');
			const text = answer.body.toString();
			if (answer.headers.get('request-id')?.startsWith('req_fake_'))
				assert.equal(answer.status, 500, 'its own account\'s words');
			else
				assert.match(text, words);
			await heal(world, key);
			assert.equal((await send()).status, 200);
		});

	test('the refusal names what it is when the account is out altogether', async () => {
		const other = await World.open({ providers: [{ slug: 'a' }, { slug: 'b' }], settings: { health: { failures: 1, cooldown_ms: 3600000, cooldown_max_ms: 3600000 } } });
		try {
			const own = await other.weir.key('bound'), session = ['x-claude-code-session-id', 'out'];
			const talk = new Conversation(sdk(other, own, [inline(ordered), session]), { thinking: null, script: { container: true, tool: undefined } });
			await talk.turn();
			await other.providers.a.outage('internal');
			await other.ask({ key: own, headers: [inline(ordered)] });
			const answer = await other.ask({ key: own, headers: [inline(ordered), session], body: JSON.stringify(talk.body()) });
			assert.match(refused(answer, answer.status, JSON.parse(answer.body).error.type), /container/i);
			assert.ok(answer.status >= 400, `${answer.status}`);
			assert.equal((await followed(other, talk.label)).hits.b, undefined);
		} finally {
			await other.close();
		}
	});

	test('a config without its account: no other one is asked, and nobody need try again', async () => {
		const other = await World.open({ providers: ['a', 'b', 'c'].map((slug) => ({ slug })), settings: { ...HARDY, default_provider: 'c' } });
		try {
			const own = await other.weir.key('elsewhere'), session = ['x-claude-code-session-id', 'elsewhere'];
			const talk = new Conversation(sdk(other, own, [inline(ordered), session]), { thinking: null, script: { container: true, tool: undefined } });
			assert.equal((await talk.turn()).route.slug, 'a');
			/* Of the first of the last ones only the request says whose it is. */
			for (const config of [fallback(['b', 'c']), loadbalance(['b', 'c']), fallback([{ override_params: { top_k: 5 } }, target('b')])]) {
				const answer = await other.ask({ key: own, headers: [inline(config), session], body: JSON.stringify(talk.body()) });
				assert.match(refused(answer, 503, 'api_error'), /container/);
				assert.equal(answer.headers.get('x-should-retry'), 'false');
			}
			assert.deepEqual((await followed(other, talk.label)).hits, { a: 1 });
			assert.equal((await talk.turn()).route.slug, 'a');
		} finally {
			await other.close();
		}
	});

	test('it binds that request and no later one', async () => {
		const other = await World.open({ workers: 1, providers: [{ slug: 'a' }, { slug: 'b' }], settings: HARDY });
		try {
			const own = await other.weir.key('later'), client = await other.open(), session = ['x-claude-code-session-id', 'bound'];
			const document = { role: 'user', content: [{ type: 'document', source: { type: 'file', file_id: 'file_of_nobody' } }] };
			const send = (config, rest = {}) => client.exchange(messageRequest({ key: own, headers: [inline(config), ...(rest.headers ?? [])], body: rest.body }));
			for (let i = 0; i < 3; i++) {
				assert.equal((await send(ordered, { headers: [session] })).status, 200);
				assert.equal((await send(ordered, { headers: [session], body: messageBody({ messages: [document] }) })).status, 404, 'there is no other way for it');
				for (const config of [{ targets: [target('b')] }, { strategy: { mode: 'single' }, targets: [target('b'), target('a')] }, { targets: [{ targets: [target('b')] }] }])
					assert.equal((await send(config)).status, 200);
			}
			client.close();
		} finally {
			await other.close();
		}
	});

	test('two providers of one account are one: the conversation may go on at either', async () => {
		const other = await World.open({ providers: [{ slug: 'a', account: 'acme' }, { slug: 'b', account: 'acme' }], settings: HARDY });
		try {
			const own = await other.weir.key('shared');
			const talk = new Conversation(sdk(other, own, [inline(ordered)]), { script: { container: true } });
			assert.equal((await talk.turn()).route.slug, 'a');
			const { signature } = talk.messages[1].content.find((b) => b.type === 'thinking');
			await other.providers.a.outage('internal');
			assert.equal((await talk.turn()).route.slug, 'b');
			const { body } = await other.providers.b.last();
			assert.ok(body.toString().includes(signature), 'nothing is dropped');
			assert.equal(JSON.parse(body).container, talk.params.container);
		} finally {
			await other.close();
		}
	});
});

test('the share of prompts that caches pay, with stickiness and without', async () => {
	const share = {};
	for (const [name, sticky] of [['with', {}], ['without', { sticky: { enabled: false } }]]) {
		const own = await world.weir.key(`cache-${name}`);
		await parallel(12, 6, async (i) => {
			const talk = new Conversation(sdk(world, own, [inline(loadbalance(['a', 'b'], sticky)), ['x-claude-code-session-id', `${name}-${i}`]]),
				{ thinking: null, mark: true, system: `Talk ${i} of ${name}. ${'You know this house. '.repeat(400)}`, script: { cache: true, tool: undefined, events: 2, text_bytes: 400 } });
			for (let turn = 0; turn < 8; turn++)
				await talk.turn();
		});
		const records = await world.weir.records(12 * 8, `key_id=${own.id}`);
		const sum = (token) => records.reduce((n, r) => n + r.tokens[token], 0);
		share[name] = sum('cache_read') / (sum('input') + sum('cache_read') + sum('cache_write_5m') + sum('cache_write_1h'));
		share[`cost_${name}_nusd`] = records.reduce((n, r) => n + r.cost_nusd, 0);
	}
	figures('sticky', share);
	assert.ok(share.with > share.without, JSON.stringify(share));
	assert.ok(share.with > 0.8, JSON.stringify(share));
	assert.ok(share.cost_with_nusd < share.cost_without_nusd, JSON.stringify(share));
});

test('one request without a past goes where it is sent, and says where', async () => {
	const seen = await walk(world, { key, config: loadbalance([target('a', { weight: 1 })]) });
	isAnswerOf(seen, 'a');
	assert.equal((await recordOf(world, seen.answer)).target, routeOf(seen.answer).index);
	await until(async () => (await world.providers.a.stats()).in_flight === 0, 'the account is idle');
});
