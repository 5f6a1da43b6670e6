// From a script to an answer: the events of a stream, or one Message, with the
// usage that belongs to it.
//
// A script is a JSON object. It comes from the queue (POST /__script), or from
// the prompt: a first user text that is JSON with a member "fake". What is not
// said has a default, so {} is a short, sane answer. tests/README.md lists the
// members.

import { toolRounds } from './account.mjs';

const CONTAINER_MS = 20 * 60000;
const TEXT = 'The weir holds, the river \u00fcber \u6f22\u5b57 passes; "quoted" \\ <tag> & \u{1F600}\n';

/** The script that the request carries in its first user text, or {}. */
export function scriptOf(body) {
	const text = firstUserText(body);
	if (!text?.startsWith('{"fake":'))
		return {};
	try {
		return JSON.parse(text).fake ?? {};
	} catch {
		return {};
	}
}

function firstUserText(body) {
	const message = body.messages.find((m) => m.role === 'user');
	if (typeof message?.content === 'string')
		return message.content;
	return message?.content?.find((b) => b.type === 'text')?.text;
}

/** Text of exactly n UTF-16 units, the same for the same n. */
function textOf(n) {
	return TEXT.repeat(Math.ceil(n / TEXT.length)).slice(0, n).replace(/[\ud800-\udfff]/g, '*');
}

function pieces(text, count) {
	const size = Math.max(1, Math.ceil(text.length / count));
	return Array.from({ length: count }, (_, i) => text.slice(i * size, i * size + size));
}

/** Rough and repeatable: a token for four bytes of the body. */
export function countTokens(bodyBytes) {
	return Math.ceil(bodyBytes / 4) + 3;
}

/** The content blocks, each with the deltas that stream it. */
function blocksOf(script, body, account) {
	const blocks = [];
	if (script.compaction)
		blocks.push(compactionBlock(account));
	const thinks = body.thinking?.type !== 'disabled';
	if (script.thinking && thinks)
		blocks.push(thinkingBlock(script.thinking, body.model, account));
	for (let i = 0; thinks && i < (script.redacted ?? 0); i++)
		blocks.push(whole({ type: 'redacted_thinking', data: account.mint('data', `redacted-${i}-`) }));
	if (script.results)
		blocks.push(...searchBlocks(script.results, account));
	if (script.container)
		blocks.push(...containerBlocks(account));
	const events = script.events ?? 3;
	if (events > 0) {
		const text = textOf(script.text_bytes ?? 24);
		blocks.push({
			start: { type: 'text', text: '' },
			whole: { type: 'text', text: text.repeat(events), citations: null },
			deltas: Array.from({ length: events }, () => ({ type: 'text_delta', text })),
		});
	}
	if (script.tool && toolRounds(body.messages) < (script.rounds ?? Infinity))
		blocks.push(toolBlock(script.tool === true ? {} : script.tool));
	return blocks;
}

/** A block that comes in one piece. */
const whole = (block) => ({ start: block, whole: block, deltas: [] });

function thinkingBlock(steps, model, account) {
	const deltas = Array.from({ length: steps }, (_, i) => `step ${i} of the thought; `);
	const thinking = deltas.join(''), signature = account.signature(model, thinking);
	return {
		start: { type: 'thinking', thinking: '', signature: '' },
		whole: { type: 'thinking', thinking, signature },
		deltas: [...deltas.map((t) => ({ type: 'thinking_delta', thinking: t })), { type: 'signature_delta', signature }],
	};
}

function compactionBlock(account) {
	const content = 'What was said so far, in short.', encrypted_content = account.mint('encrypted_content', 'compaction-');
	return {
		start: { type: 'compaction', content: null, encrypted_content: null }, whole: { type: 'compaction', content, encrypted_content },
		deltas: [{ type: 'compaction_delta', content, encrypted_content }],
	};
}

function serverTool(name, input, account) {
	const use = { type: 'server_tool_use', id: account.mint('use', 'srvtoolu_01'), name, input };
	return { start: { ...use, input: {} }, whole: use, deltas: [{ type: 'input_json_delta', partial_json: JSON.stringify(input) }] };
}

/** A web search, its results, and a text that cites the first of them. */
function searchBlocks(count, account) {
	const search = serverTool('web_search', { query: 'how a weir works' }, account);
	const results = Array.from({ length: count }, (_, i) => ({ type: 'web_search_result', title: `Weirs, part ${i}`, url: `https://example.com/weir/${i}`,
		page_age: null, encrypted_content: account.mint('encrypted_content', `result-${i}-`) }));
	const citation = { type: 'web_search_result_location', cited_text: 'A weir is a low dam.', title: results[0].title, url: results[0].url,
		encrypted_index: account.mint('encrypted_index', 'index-') };
	const text = 'A weir is a low dam.';
	return [search, whole({ type: 'web_search_tool_result', tool_use_id: search.whole.id, content: results }), {
		start: { type: 'text', text: '', citations: [] }, whole: { type: 'text', text, citations: [citation] },
		deltas: [{ type: 'citations_delta', citation }, { type: 'text_delta', text }],
	}];
}

/** A command that was run in the container, and left a file there. */
function containerBlocks(account) {
	const use = serverTool('bash_code_execution', { command: 'date > now.txt' }, account);
	return [use, whole({ type: 'bash_code_execution_tool_result', tool_use_id: use.whole.id, content: { type: 'bash_code_execution_result',
		stdout: '', stderr: '', return_code: 0, content: [{ type: 'bash_code_execution_output', file_id: account.mint('file', 'file_01') }] } })];
}

function toolBlock(tool) {
	const use = {
		type: 'tool_use', id: tool.id ?? 'toolu_01FakeToolUse', name: tool.name ?? 'write_file',
		input: tool.input ?? { path: '/tmp/\u00fcber "x".txt', lines: [1, 2.5, -3e-7, null, true], text: textOf(200) },
	};
	return {
		start: { ...use, input: {} }, whole: use,
		deltas: ['', ...pieces(JSON.stringify(use.input), tool.pieces ?? 12)]
			.map((partial_json) => ({ type: 'input_json_delta', partial_json })),
	};
}

/** What the answer will have used when it is complete. */
function usageOf(script, body, bodyBytes, deltas, promptCache) {
	const wanted = script.usage ?? (script.cache ? promptCache.use(body, Date.now()) : {});
	const write5m = wanted.cache_creation?.ephemeral_5m_input_tokens ?? 0;
	const write1h = wanted.cache_creation?.ephemeral_1h_input_tokens ?? 0;
	const output = wanted.output_tokens ?? deltas * (script.tokens_per_event ?? 1);
	return {
		input_tokens: countTokens(bodyBytes), cache_creation_input_tokens: write5m + write1h, cache_read_input_tokens: 0,
		cache_creation: { ephemeral_5m_input_tokens: 0, ephemeral_1h_input_tokens: 0 },
		output_tokens_details: { thinking_tokens: 0 },
		server_tool_use: { web_search_requests: script.searches ?? 0, web_fetch_requests: 0 },
		service_tier: 'standard', inference_geo: body.inference_geo ?? 'global', speed: body.speed ?? 'standard',
		...wanted,
		output_tokens: Math.min(output, body.max_tokens),
	};
}

/**
 * The answer as data: {model, message, usage, events}. Each event is
 * {name, data, usage}: `usage` is what the provider would bill if this event
 * were the last that left.
 */
export function composeAnswer(script, body, bodyBytes, { name, account, promptCache }) {
	const blocks = blocksOf(script, body, account);
	const deltas = blocks.reduce((n, b) => n + b.deltas.length, 0);
	const usage = usageOf(script, body, bodyBytes, deltas, promptCache);
	const stopReason = script.stop_reason ?? (usage.output_tokens === body.max_tokens && body.max_tokens > 0 ? 'max_tokens' : blocks.at(-1)?.whole.type === 'tool_use' ? 'tool_use' : 'end_turn');
	const message = {
		id: account.seal(body.thread ? 'thread' : 'message', name), type: 'message', role: 'assistant', model: script.model ?? body.model,
		content: blocks.map((b) => b.whole), stop_reason: stopReason, stop_sequence: null, stop_details: null,
		container: containerOf(script, body, account), diagnostics: diagnosticsOf(body, account), usage, ...script.extra_message,
	};
	return { message, usage, model: message.model, events: eventsOf(script, message, blocks, usage, deltas) };
}

/** The container that the request names, or a new one if the script uses one. */
function containerOf(script, body, account) {
	const named = typeof body.container === 'string' ? body.container : body.container?.id;
	if (!script.container && !named)
		return null;
	return { id: named ?? account.mint('container', 'container_01'), expires_at: new Date(Date.now() + CONTAINER_MS).toISOString(), skills: null };
}

/** A message that is not this account's is no mistake: there is only nothing to compare with. */
function diagnosticsOf(body, account) {
	const id = body.diagnostics?.previous_message_id;
	if (!id)
		return null;
	const known = account.owns('message', id) || account.owns('thread', id);
	return { cache_miss_reason: known ? null : { type: 'previous_message_not_found' } };
}

function eventsOf(script, message, blocks, usage, deltas) {
	const start = { ...usage, output_tokens: Math.min(1, usage.output_tokens), iterations: undefined,
		server_tool_use: { web_search_requests: 0, web_fetch_requests: 0 } };
	if (script.start_usage)
		Object.assign(start, script.start_usage);
	const events = [...(script.ping_first ? [event('ping', {}, null)] : []),
		event('message_start', { message: { ...message, content: [], stop_reason: null, container: null, usage: start } }, start)];
	let sent = 0;
	const running = () => ({ ...start, output_tokens: Math.max(start.output_tokens, Math.floor(usage.output_tokens * sent / Math.max(1, deltas))) });
	blocks.forEach((block, index) => {
		events.push(event('content_block_start', { index, content_block: block.start }, running()));
		for (const delta of block.deltas) {
			sent++;
			events.push(event('content_block_delta', { index, delta }, running()));
			if (script.ping_every && sent % script.ping_every === 0)
				events.push(event('ping', {}, running()));
			if (script.unknown_every && sent % script.unknown_every === 0)
				events.push(event('river_level', { centimetres: sent }, running()));
		}
		events.push(event('content_block_stop', { index }, running()));
	});
	if (script.error_after !== undefined)
		return [...events.slice(0, script.error_after), errorEvent(script, events[script.error_after - 1]?.usage ?? null)];	/* before message_start nothing is billed */
	if (script.end_after !== undefined)
		return events.slice(0, script.end_after);
	events.push(event('message_delta', {
		delta: { stop_reason: message.stop_reason, stop_sequence: null, stop_details: null, container: message.container, ...script.extra_delta },
		usage: finalUsage(usage),
	}, usage));
	events.push(event('message_stop', {}, usage));
	return events;
}

/** message_delta has no split of cache writes, tier, geo or speed. */
function finalUsage(usage) {
	const { cache_creation, service_tier, inference_geo, speed, ...rest } = usage;
	void cache_creation, service_tier, inference_geo, speed;
	return rest;
}

function event(name, data, usage) {
	return { name, data: { type: name, ...data }, usage };
}

function errorEvent(script, usage) {
	const type = script.error_type ?? 'overloaded_error';
	return { name: 'error', data: { type: 'error', error: { type, message: 'Overloaded' }, request_id: 'req_011CfakeEvent' }, usage };
}

/** An event in one of the spellings that the event stream format allows. */
export function encodeEvent(e, style, first) {
	const json = JSON.stringify(e.data);
	switch (style) {
	case 'crlf': return Buffer.from(`event: ${e.name}\r\ndata: ${json}\r\n\r\n`);
	case 'cr': return Buffer.from(`event: ${e.name}\rdata: ${json}\r\r`);
	case 'tight': return Buffer.from(`event:${e.name}\ndata:${json}\n\n`);
	case 'comments': return Buffer.from(`: note\nid: 7\nevent: ${e.name}\n: between\ndata: ${json}\nretry: 10\n\n`);
	case 'nameless': return Buffer.from(`data: ${json}\n\n`);
	case 'bom': return Buffer.from(`${first ? '\ufeff' : ''}event: ${e.name}\ndata: ${json}\n\n`);
	case 'lines': return Buffer.from(`event: ${e.name}\n${JSON.stringify(e.data, null, 1).split('\n').map((l) => `data: ${l}`).join('\n')}\n\n`);
	default: return Buffer.from(`event: ${e.name}\ndata: ${json}\n\n`);
	}
}
