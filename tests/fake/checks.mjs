// What the provider checks before it works, and what a gateway must never send.
//
// Two kinds of findings. A *refusal* is an answer that the real provider would
// give (400, 401, 404, 413 ...). A *violation* is something that the real one
// may overlook but that a gateway must not do: passing on a client's
// credential, its own control headers, or headers of another hop. Violations
// are recorded whatever becomes of the request. What only one account may
// send back is the account's to check (account.mjs).

import { Refusal } from './refusal.mjs';

export const VERSIONS = ['2023-06-01', '2026-10-21'];
const BODY_BYTES_MAX = 32 * 1024 * 1024;
const MESSAGES_MAX = 100000;
const HOP_BY_HOP = ['keep-alive', 'proxy-authenticate', 'proxy-authorization', 'proxy-connection', 'te', 'trailer', 'upgrade', 'expect'];
const NOT_FOR_COUNTING = ['max_tokens', 'stream', 'metadata', 'service_tier', 'stop_sequences', 'container'];

const invalid = (message) => new Refusal(400, 'invalid_request_error', message);
const isObject = (v) => typeof v === 'object' && v !== null && !Array.isArray(v);
const present = (v) => v !== undefined && v !== null;

function demand(condition, message) {
	if (!condition)
		throw invalid(message);
}

/** Names of what must not have come, for the list of violations. */
export function violationsOf(request, apiKey) {
	const found = [];
	for (const [name, value] of request.headers) {
		const lower = name.toLowerCase();
		if (/weir_sk_/.test(value))
			found.push(`header ${lower} carries a gateway key`);
		if (lower.startsWith('x-portkey-') || lower.startsWith('x-weir-'))
			found.push(`header ${lower} is the gateway's own`);
		if (HOP_BY_HOP.includes(lower))
			found.push(`header ${lower} belongs to another hop`);
		if (lower === 'connection' && !/^(keep-alive|close)$/i.test(value))
			found.push(`connection: ${value}`);
		if (lower === 'authorization' || lower === 'cookie')
			found.push(`header ${lower} is the client's`);
		if (lower === 'x-api-key' && value !== apiKey)
			found.push('x-api-key is not the account\'s');
		if (lower === 'accept-encoding' && !/^identity$/i.test(value))
			found.push(`accept-encoding: ${value} lets the provider compress`);
	}
	if (/weir_sk_/.test(request.target))
		found.push('the target carries a gateway key');
	return found;
}

/** Checks the head and the body; returns the parsed body. Throws Refusal. */
export function checkRequest(request, options, models) {
	const path = request.target.split('?')[0];
	const counting = path === `${options.prefix}/v1/messages/count_tokens`;
	if (path !== `${options.prefix}/v1/messages` && !counting)
		throw new Refusal(404, 'not_found_error', 'Not found');
	if (request.method !== 'POST')
		throw new Refusal(405, 'invalid_request_error', 'Method Not Allowed');
	checkHeaders(request, options['api-key']);
	const body = parseBody(request.body);
	checkTop(body, counting, request.header('anthropic-version'));
	checkMessages(body.messages, request.header('anthropic-version'));
	if (!models(body.model))
		throw new Refusal(404, 'not_found_error', `model: ${body.model}`);
	return { body, counting };
}

function checkHeaders(request, apiKey) {
	if (request.header('x-api-key') === undefined)
		throw new Refusal(401, 'authentication_error', 'x-api-key header is required');
	if (request.header('x-api-key') !== apiKey)
		throw new Refusal(401, 'authentication_error', 'invalid x-api-key');
	const version = request.header('anthropic-version');
	demand(version !== undefined, 'anthropic-version: header is required');
	demand(VERSIONS.includes(version), `anthropic-version: "${version}" is not a valid version`);
	const type = request.header('content-type') ?? '';
	demand(/^application\/json\s*(;\s*charset="?utf-8"?\s*)?$/i.test(type), `content-type: "${type}" is not application/json`);
	demand(request.header('content-encoding') === undefined, 'content-encoding: request body encoding unsupported');
	demand(request.lengthKnown, 'content-length: required');
	if (request.body.length > BODY_BYTES_MAX)
		throw new Refusal(413, 'request_too_large', 'Request exceeds the maximum allowed number of bytes.');
}

function parseBody(bytes) {
	let text;
	try {
		text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
	} catch {
		throw invalid('The request body is not valid UTF-8.');
	}
	try {
		return JSON.parse(text);
	} catch (e) {
		throw invalid(`The request body is not valid JSON: ${e.message}`);
	}
}

function checkTop(body, counting, version) {
	demand(isObject(body), 'Input should be an object');
	demand(typeof body.model === 'string' && body.model !== '', 'model: Field required');
	if (counting) {
		for (const name of NOT_FOR_COUNTING)
			demand(!(name in body), `${name}: Extra inputs are not permitted`);
	} else {
		demand(present(body.max_tokens), 'max_tokens: Field required');
		demand(Number.isInteger(body.max_tokens) && body.max_tokens >= 0, 'max_tokens: Input should be a valid integer greater than or equal to 0');
		demand(body.max_tokens <= 1000000, `max_tokens: ${body.max_tokens} > 1000000, which is the maximum allowed number of output tokens`);
	}
	demand(!present(body.stream) || typeof body.stream === 'boolean', 'stream: Input should be a valid boolean');
	demand(!present(body.system) || typeof body.system === 'string' ||
		(Array.isArray(body.system) && body.system.every((b) => b?.type === 'text' && typeof b.text === 'string')),
	'system: Input should be a string or text blocks');
	demand(!present(body.metadata) || (isObject(body.metadata) &&
		(!present(body.metadata.user_id) || typeof body.metadata.user_id === 'string')), 'metadata: Input should be an object');
	demand(!present(body.stop_sequences) || (Array.isArray(body.stop_sequences) &&
		body.stop_sequences.every((s) => typeof s === 'string')), 'stop_sequences: Input should be strings');
	demand(!present(body.service_tier) || ['auto', 'standard_only'].includes(body.service_tier), 'service_tier: Input should be auto or standard_only');
	demand(!present(body.tools) || (Array.isArray(body.tools) && body.tools.every(isTool)), 'tools: Input should be a list of tools');
	demand(!present(body.tool_choice) || ['auto', 'any', 'tool', 'none'].includes(body.tool_choice?.type), 'tool_choice: Input tag is unknown');
	checkThinking(body);
	if (version === '2026-10-21')
		for (const name of ['temperature', 'top_p', 'top_k'])
			demand(!(name in body), `${name}: Extra inputs are not permitted`);
}

function isTool(tool) {
	return isObject(tool) && (present(tool.type) && tool.type !== 'custom' ? typeof tool.type === 'string'
		: typeof tool.name === 'string' && isObject(tool.input_schema));
}

function checkThinking(body) {
	const thinking = body.thinking;
	if (!present(thinking))
		return;
	demand(['enabled', 'adaptive', 'between_tools', 'disabled'].includes(thinking.type), 'thinking: Input tag is unknown');
	if (thinking.type === 'enabled') {
		demand(Number.isInteger(thinking.budget_tokens) && thinking.budget_tokens >= 1024, 'thinking.enabled.budget_tokens: Input should be greater than or equal to 1024');
		demand(!present(body.max_tokens) || thinking.budget_tokens < body.max_tokens, '`max_tokens` must be greater than `thinking.budget_tokens`');
	}
}

function checkMessages(messages, version) {
	demand(Array.isArray(messages), 'messages: Field required');
	demand(messages.length > 0 && messages.length <= MESSAGES_MAX, `messages: ${messages.length} messages`);
	messages.forEach((message, i) => {
		const at = `messages.${i}`;
		demand(isObject(message), `${at}: Input should be an object`);
		demand(['user', 'assistant', 'system'].includes(message.role), `${at}.role: Input should be 'user', 'assistant' or 'system'`);
		demand(typeof message.content === 'string' || Array.isArray(message.content), `${at}.content: Input should be a string or blocks`);
		if (Array.isArray(message.content))
			message.content.forEach((block, j) => checkBlock(block, message.role, version, `${at}.content.${j}`));
	});
}

function checkBlock(block, role, version, at) {
	demand(isObject(block) && typeof block.type === 'string', `${at}.type: Field required`);
	if (block.type === 'text')
		demand(typeof block.text === 'string', `${at}.text: Field required`);
	if (block.type === 'tool_use')
		demand(typeof block.id === 'string' && typeof block.name === 'string' && isObject(block.input), `${at}: tool_use needs id, name and input`);
	if (block.type === 'tool_result')
		demand(typeof block.tool_use_id === 'string', `${at}.tool_use_id: Field required`);
	if (block.type === 'thinking' || block.type === 'redacted_thinking')
		demand(role === 'assistant', `${at}: ${block.type} blocks belong to the assistant`);
	if (present(block.cache_control))
		demand(block.cache_control.type === 'ephemeral' && ['5m', '1h', undefined, null].includes(block.cache_control.ttl), `${at}.cache_control: unknown`);
	if (version === '2026-10-21') {
		demand(!(block.type === 'document' && role === 'assistant'), `${at}: document blocks are not allowed in assistant messages`);
		demand(!(block.type === 'text' && role === 'user' && block.citations?.length), `${at}.citations: Extra inputs are not permitted`);
	}
}
