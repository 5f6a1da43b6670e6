// The simulated accounts: what one of them makes, no other accepts; what it has
// seen of prompts it bills as cached.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import Anthropic from '@anthropic-ai/sdk';

import { Account } from '../fake/account.mjs';
import { parseEvents } from './client.mjs';
import { API_KEY, Client, Provider, World, messageBody, messageRequest } from './harness.mjs';

const MODEL = 'claude-sonnet-5-5';
let main, other;

before(async () => {
	main = await Provider.start();
	other = await Provider.start({ account: 'other' });
});
after(async () => {
	await main.stop();
	await other.stop();
});

async function ask(provider, body) {
	const client = await Client.open({ port: provider.port });
	const answer = await client.exchange(messageRequest({ key: API_KEY, body: JSON.stringify(body) }));
	client.close();
	return { status: answer.status, ...JSON.parse(answer.body) };
}

const prompt = (script) => ({ role: 'user', content: [{ type: 'text', text: JSON.stringify({ fake: script }) }] });
const body = (messages, rest = {}) => ({ model: MODEL, max_tokens: 4096, messages, ...rest });
const first = async (script, rest) => ask(main, body([prompt(script)], rest));
const follow = (answer, rest = {}) => body([prompt({ events: 1 }), { role: 'assistant', content: answer.content }, { role: 'user', content: 'on' }], rest);

/* What the first answer is made of, what the next request carries of it, and how another account refuses that. */
const STATE = [
	['thinking', { thinking: 3 }, (a) => follow(a), 400, /^messages\.1\.content\.0: Invalid `signature` in `thinking` block$/],
	['redacted thinking', { redacted: 2 }, (a) => follow(a), 400, /^messages\.1\.content\.0: Invalid `data` in `redacted_thinking` block$/],
	['search results', { results: 2 }, (a) => follow({ content: a.content.slice(0, 2) }), 400, /^messages\.1\.content\.1\.content\.0: Invalid `encrypted_content` in `web_search_result` block$/],
	['a citation', { results: 1 }, (a) => follow({ content: a.content.slice(2) }), 400, /^messages\.1\.content\.0\.citations\.0: Invalid `encrypted_index` in `web_search_result_location` block$/],
	['a compaction', { compaction: true }, (a) => follow(a), 400, /^messages\.1\.content\.0: Invalid `encrypted_content` in `compaction` block$/],
	['a container', { container: true }, (a) => follow({ content: [{ type: 'text', text: 'x' }] }, { container: a.container.id }), 404, /^Container not found: container_01/],
	['a container with skills', { container: true }, (a) => follow({ content: [{ type: 'text', text: 'x' }] }, { container: { id: a.container.id, skills: [] } }), 404, /^Container not found/],
	['a file of the container', { container: true }, (a) => follow(a), 404, /^File not found: file_01/],
	['a file as a source', { container: true }, (a) => body([{ role: 'user', content: [{ type: 'document', source: { type: 'file', file_id: fileOf(a) } }] }]), 404, /^File not found: file_01/],
	['a file in a tool result', { container: true }, (a) => body([prompt({}), { role: 'user', content: [{ type: 'tool_result', tool_use_id: 't',
		content: [{ type: 'image', source: { type: 'file', file_id: fileOf(a) } }] }] }]), 404, /^File not found: file_01/],
	['a file for the container', { container: true }, (a) => body([{ role: 'user', content: [{ type: 'container_upload', file_id: fileOf(a) }] }]), 404, /^File not found: file_01/],
	['a thread', {}, (a) => body([{ role: 'user', content: 'on' }], { thread: { type: 'continue', previous_message_id: a.id } }), 404, /no thread state was found for msg_/],
];
const fileOf = (answer) => answer.content.find((b) => b.type === 'bash_code_execution_tool_result').content.content[0].file_id;

for (const [name, script, next, status, words] of STATE)
	test(`${name}: its own account goes on with it, another one refuses it`, async () => {
		const answer = await first(script, { thread: { type: 'create' } });
		assert.equal(answer.status, 200, JSON.stringify(answer));
		const own = await ask(main, next(answer));
		assert.equal(own.status, 200, JSON.stringify(own.error));
		const foreign = await ask(other, next(answer));
		assert.equal(foreign.status, status, JSON.stringify(foreign));
		assert.equal(foreign.error.type, status === 400 ? 'invalid_request_error' : 'not_found_error');
		assert.match(foreign.error.message, words);
	});

test('what was changed, or never made, is refused by its own account too', async () => {
	const answer = await first({ thinking: 2, redacted: 1 }), [thinking, redacted] = answer.content;
	for (const [content, words] of [[{ ...thinking, thinking: 'something else' }, /signature/], [{ ...thinking, signature: 'x' }, /signature/],
		[{ ...redacted, data: redacted.data.replace('redacted', 'REDACTED') }, /data/], [{ ...redacted, data: undefined }, /data/]])
		assert.match((await ask(main, follow({ content: [content] }))).error.message, words);
	assert.match((await ask(main, { ...follow(answer), model: 'claude-opus-5-5' })).error.message, /signature/, 'thinking is its model\'s');
	assert.equal((await ask(main, body([{ role: 'user', content: 'x' }], { container: 'container_012345' }))).status, 404);
	const lost = await ask(main, body([{ role: 'user', content: 'x' }], { thread: { type: 'continue', previous_message_id: (await first({})).id } }));
	assert.deepEqual([lost.status, lost.error.details.error_code], [404, 'thread_not_found'], 'a message that began no thread');
	assert.match((await ask(main, body([{ role: 'user', content: 'x' }], { fallback_credit_token: 'fct_1' }))).error.message, /fallback_credit_token/);
});

test('diagnostics of another account\'s message are no mistake, there is only nothing to compare', async () => {
	const { id } = await first({});
	const asked = body([{ role: 'user', content: 'x' }], { diagnostics: { previous_message_id: id } });
	assert.deepEqual((await ask(main, asked)).diagnostics, { cache_miss_reason: null });
	assert.deepEqual((await ask(other, asked)).diagnostics, { cache_miss_reason: { type: 'previous_message_not_found' } });
});

test('an account is its name: started again it knows what it has made', async () => {
	const answer = await first({ thinking: 1, container: true });
	const again = await Provider.start({ account: 'main' });
	try {
		assert.equal((await ask(again, { ...follow(answer), container: answer.container.id })).status, 200);
	} finally {
		await again.stop();
	}
	assert.ok(new Account('main').owns('container', answer.container.id) && !new Account('other').owns('container', answer.container.id));
});

test('with thinking enabled, a turn in its tool loop begins with its thought', async () => {
	const answer = await first({ thinking: 2, tool: true, events: 0 });
	const [thought, use] = answer.content, result = { role: 'user', content: [{ type: 'tool_result', tool_use_id: use.id, content: 'done' }] };
	const enabled = { thinking: { type: 'enabled', budget_tokens: 1024 } };
	const loop = (content, rest = [], more = enabled) => body([prompt({ events: 1 }), { role: 'assistant', content }, result, ...rest], more);
	const missing = await ask(main, loop([use]));
	assert.equal(missing.status, 400);
	assert.equal(missing.error.type, 'invalid_request_error');
	assert.ok(missing.error.message.startsWith('messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When `thinking` is enabled, '
		+ 'a final `assistant` message must start with a thinking block'), missing.error.message);
	assert.match((await ask(main, loop([{ type: 'text', text: 'x' }, use]))).error.message, /but found `text`/);
	for (const [content, rest, more] of [[[thought, use]], [[use], [], { thinking: { type: 'disabled' } }], [[use], [], { thinking: { type: 'adaptive' } }], [[use], [], {}],
		[[use], [{ role: 'user', content: 'never mind' }]],					/* the loop is over */
		[[thought, use], [{ role: 'assistant', content: [use] }, result]]]) {		/* a later round of the same turn */
		const fine = await ask(main, loop(content, rest, more));
		assert.equal(fine.status, 200, `${JSON.stringify(content.map((b) => b.type))}: ${fine.error?.message}`);
	}
	const second = await ask(main, body([prompt({}), { role: 'assistant', content: [thought, use] }, result, { role: 'assistant', content: 'well' },
		{ role: 'user', content: 'again' }, { role: 'assistant', content: [use] }, result], enabled));
	assert.match(second.error.message, /^messages\.5\.content\.0\.type/);
});

test('a script calls tools in rounds, and does not think where that is disabled', async () => {
	const messages = [prompt({ events: 1, thinking: 1, redacted: 1, tool: true, rounds: 2 })], seen = [];
	for (let turn = 0; turn < 6; turn++) {
		const answer = await ask(main, body(messages));
		seen.push(answer.stop_reason);
		messages.push({ role: 'assistant', content: answer.content }, { role: 'user', content: answer.stop_reason === 'tool_use'
			? [{ type: 'tool_result', tool_use_id: answer.content.at(-1).id, content: 'x' }] : 'and then?' });
	}
	assert.deepEqual(seen, ['tool_use', 'tool_use', 'end_turn', 'tool_use', 'tool_use', 'end_turn']);
	const quiet = await ask(main, body([prompt({ thinking: 1, redacted: 1 })], { thinking: { type: 'disabled' } }));
	assert.deepEqual(quiet.content.map((b) => b.type), ['text']);
});

test('the SDK puts the same message together from a stream of all of it', async () => {
	const client = new Anthropic({ baseURL: main.url, apiKey: 'x', defaultHeaders: { authorization: null, 'x-api-key': API_KEY } });
	const params = body([prompt({ thinking: 2, redacted: 1, results: 2, container: true, events: 2, tool: true })]);
	const plain = await client.beta.messages.create(params), streamed = await client.beta.messages.stream(params).finalMessage();
	const types = ['thinking', 'redacted_thinking', 'server_tool_use', 'web_search_tool_result', 'text', 'server_tool_use', 'bash_code_execution_tool_result', 'text', 'tool_use'];
	for (const message of [plain, streamed]) {
		assert.deepEqual(message.content.map((b) => b.type), types);
		assert.match(message.container.id, /^container_01/);
		assert.equal(message.content[3].content.length, 2);
		assert.equal(message.content[4].citations.length, 1);
		assert.equal((await client.beta.messages.create({ ...params, messages: [...params.messages, { role: 'assistant', content: message.content },
			{ role: 'user', content: [{ type: 'tool_result', tool_use_id: message.content[8].id, content: 'ok' }] }], container: message.container.id })).container.id, message.container.id);
	}
	await main.reset();
});

const long = (text) => ({ type: 'text', text: text.repeat(2000), cache_control: { type: 'ephemeral' } });
const cached = (blocks, rest = {}) => ({ model: MODEL, max_tokens: 100, system: blocks, messages: [prompt({ events: 1, cache: true })], ...rest });
const counts = ({ usage }) => [usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens];

test('a prompt whose beginning was marked before reads it, at that account and of that model', async () => {
	const blocks = [long('abc '), long('def ')];
	const [input, written, read] = counts(await ask(main, cached(blocks)));
	assert.ok(input > 0 && written > 3900 && read === 0, `${[input, written, read]}`);
	const again = await ask(main, cached(blocks));
	assert.deepEqual(counts(again), [input, 0, written]);
	const last = (await main.requests(1))[0];
	assert.equal(BigInt(last.cost_nusd), BigInt(input) * 2000n + BigInt(written) * 100n + 10000n, 'reads are billed as reads');
	assert.equal(counts(await ask(main, cached([blocks[0], long('xyz ')])))[2], Math.ceil(written / 2), 'the marked beginning that they share');
	assert.equal(counts(await ask(other, cached(blocks)))[2], 0, 'another account has not seen it');
	assert.equal(counts(await ask(main, cached(blocks, { model: 'claude-opus-5-5' })))[2], 0, 'nor has another model');
	assert.equal(counts(await ask(main, cached([{ ...blocks[0], text: `!${blocks[0].text}` }, blocks[1]])))[2], 0, 'a beginning is the same from its first byte');
});

test('a conversation that grows reads what it had before; markers may move', async () => {
	const messages = [prompt({ events: 1, cache: true, tool: true })];
	let before = 0;
	for (let turn = 0; turn < 6; turn++) {
		const answer = await ask(main, { model: MODEL, max_tokens: 1000, system: [long('sys ')], messages: messages.map((m, i) =>
			(i === messages.length - 1 ? { ...m, content: m.content.map((b) => ({ ...b, cache_control: { type: 'ephemeral' } })) } : m)) });
		const [input, written, read] = counts(answer);
		assert.equal(read, before, `turn ${turn}`);
		assert.equal(input, 0, 'the last block is marked');
		before = read + written;
		messages.push({ role: 'assistant', content: answer.content }, { role: 'user', content: [{ type: 'tool_result', tool_use_id: answer.content[1].id, content: `turn ${turn}` }] });
	}
});

test('an hour is written as an hour, short beginnings are not kept, a script\'s usage goes first', async () => {
	const hour = await ask(main, cached([{ ...long('hour '), cache_control: { type: 'ephemeral', ttl: '1h' } }]));
	assert.ok(hour.usage.cache_creation.ephemeral_1h_input_tokens > 2000 && hour.usage.cache_creation.ephemeral_5m_input_tokens === 0);
	for (let i = 0; i < 2; i++)
		assert.deepEqual(counts(await ask(main, cached([{ ...long(''), text: 'short' }]))).slice(1), [0, 0]);
	assert.equal((await ask(main, { ...cached([long('abc ')]), messages: [prompt({ cache: true, usage: { input_tokens: 5 } })] })).usage.input_tokens, 5);
	assert.equal((await ask(main, { ...cached([long('abc ')]), messages: [prompt({})] })).usage.cache_read_input_tokens, 0, 'nobody asked for it');
	const top = await ask(main, { ...cached([{ type: 'text', text: 'top '.repeat(2000) }]), cache_control: { type: 'ephemeral' } });
	assert.ok(top.usage.cache_creation_input_tokens > 2000, 'a marker at the top is on the last block');
});

test('a script may say something else at each turn of a label', async () => {
	const turns = { label: 'turns', in_turn: [{ error: 'overloaded' }, { events: 7 }] };
	assert.equal((await ask(main, body([prompt(turns)]))).status, 529);
	assert.equal((await ask(main, body([prompt({ ...turns, label: 'others' })]))).status, 529, 'labels have turns of their own');
	for (let i = 0; i < 2; i++)
		assert.equal((await ask(main, body([prompt(turns)]))).usage.output_tokens, 7, 'the last one stands');
	assert.deepEqual((await main.labelled('turns')).map((r) => r.status), [529, 200, 200]);
	assert.equal((await main.bill()).requests.filter((r) => r.label === 'turns').length, 3);
});

test('a script may say something else to each account', async () => {
	const script = { events: 2, accounts: { main: { error: 'overloaded' }, other: { events: 5, in_turn: [{ error: 'internal' }, {}], label: 'own' } } };
	assert.equal((await ask(main, body([prompt(script)]))).status, 529);
	assert.equal((await ask(other, body([prompt(script)]))).status, 500);
	assert.equal((await ask(other, body([prompt(script)]))).usage.output_tokens, 5);
});

test('a ping may come first, and a head may wait at a gate', async () => {
	const client = await Client.open({ port: main.port });
	await client.send(messageRequest({ key: API_KEY, stream: true, script: { events: 1, ping_first: true, hold: { before_head: true, gate: 'head' } } }));
	await main.held(1);
	assert.equal(client.received, 0);
	await main.release('head');
	assert.deepEqual(parseEvents((await client.response()).body).map((e) => e.event).slice(0, 2), ['ping', 'message_start']);
	client.close();
});

test('a world of several accounts: each has its credential, and each is looked at in the end', async () => {
	const accounts = [{ slug: 'one' }, { slug: 'two', tls: true }, { slug: 'three', account: 'shared', settings: { models: ['claude-haiku-*'] } }];
	const world = await World.open({ providers: accounts, settings: { default_provider: 'one' } });
	try {
		const key = await world.weir.key('several');
		for (const { slug } of accounts) {
			const answer = await world.ask({ key, headers: [['x-portkey-provider', `@${slug}`]], body: messageBody({ model: 'claude-haiku-5-5' }) });
			assert.equal(answer.status, 200, answer.body.toString());
			assert.equal((await world.providers[slug].stats()).requests, 1);
		}
		assert.equal(world.provider, world.providers.one);
		assert.equal((await ask(world.providers.one, {})).status, 401, 'none takes the credential of another');
		await assert.rejects(world.close(), /x-api-key is not the account's/);
	} finally {
		world.weir.kill();
	}
	const short = await World.open({ providers: accounts });
	short.providers.two.child.kill('SIGKILL');
	await new Promise((resolve) => short.providers.two.child.once('exit', resolve));
	await assert.rejects(short.close(), /the provider two ended with SIGKILL/);
});
