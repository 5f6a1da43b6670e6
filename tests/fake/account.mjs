// What only one account understands.
//
// The provider hands out things that it wants back as they were: signatures of
// thinking, containers, files, threads, encrypted search results, compactions.
// All are sealed here under the account's name, so that what another account
// made, or what was changed on the way, is refused in the provider's words.
// Nothing is remembered for it: an account that is started again knows its own.

import { createHmac, randomBytes } from 'node:crypto';

import { Refusal } from './refusal.mjs';

const SEAL_HEX = 16;
const NONCE_BYTES = 8;
const EXPECTED_THINKING = 'When `thinking` is enabled, a final `assistant` message must start with a thinking block (preceeding the lastmost set of '
	+ '`tool_use` and `tool_result` blocks). We recommend you include thinking blocks from previous turns. To avoid this requirement, disable `thinking`. '
	+ 'Please consult our documentation at https://docs.claude.com/en/docs/build-with-claude/extended-thinking';

const invalid = (message) => new Refusal(400, 'invalid_request_error', message);
const missing = (message, details) => new Refusal(404, 'not_found_error', message, details);
const list = (value) => (Array.isArray(value) ? value : []);

/** A dated name and its alias are one model. */
const plainModel = (model) => String(model).replace(/-20\d{6}$/, '');

export class Account {
	#key;

	constructor(name) {
		this.name = name;
		this.#key = `account ${name}`;
	}

	#mac(kind, ...parts) {
		return createHmac('sha256', this.#key).update(JSON.stringify([kind, ...parts])).digest();
	}

	/** Of a thinking block: over account, model and text. */
	signature(model, thinking) {
		return this.#mac('thinking', plainModel(model), String(thinking)).toString('base64');
	}

	/** A new name of that kind that this account will know: prefix, nonce, seal. */
	mint(kind, prefix) {
		return this.seal(kind, prefix + randomBytes(NONCE_BYTES).toString('hex'));
	}

	/** `text` with this account's seal behind it. */
	seal(kind, text) {
		return text + this.#mac(kind, text).toString('hex').slice(0, SEAL_HEX);
	}

	/** Whether this account has sealed it, as something of that kind. */
	owns(kind, sealed) {
		return typeof sealed === 'string' && sealed.length > SEAL_HEX && this.seal(kind, sealed.slice(0, -SEAL_HEX)) === sealed;
	}

	/** Throws the Refusal of the first thing in a body that is not this account's. */
	check(body) {
		list(body.messages).forEach((message, i) => list(message?.content).forEach((block, j) =>
			this.#checkBlock(block, body.model, `messages.${i}.content.${j}`)));
		this.#checkToolLoop(body);
		const container = typeof body.container === 'string' ? body.container : body.container?.id;
		if (container !== undefined && container !== null && !this.owns('container', container))
			throw missing(`Container not found: ${container}`);
		if (body.thread?.type === 'continue' && !this.owns('thread', body.thread.previous_message_id))
			throw missing(`thread.previous_message_id: no thread state was found for ${body.thread.previous_message_id}`, { error_code: 'thread_not_found' });
		const token = body.fallback_credit_token?.token ?? body.fallback_credit_token;
		if (token !== undefined && token !== null && !this.owns('credit', token))
			throw invalid('fallback_credit_token: the token is not valid for this workspace');
	}

	#checkBlock(block, model, at) {
		switch (block.type) {
		case 'thinking':
			if (block.signature !== this.signature(model, block.thinking))
				throw invalid(`${at}: Invalid \`signature\` in \`thinking\` block`);
			break;
		case 'redacted_thinking':
			this.#opens(block, 'data', at);
			break;
		case 'compaction':
			if (block.content !== null && block.content !== undefined)
				this.#opens(block, 'encrypted_content', at);
			break;
		case 'container_upload':
			this.#checkFile(block.file_id);
			break;
		}
		if (block.source?.type === 'file')
			this.#checkFile(block.source.file_id);
		list(block.citations).forEach((citation, i) => {
			if (citation.type === 'web_search_result_location')
				this.#opens(citation, 'encrypted_index', `${at}.citations.${i}`);
		});
		const content = block.content;
		if (content?.type === 'encrypted_code_execution_result')
			this.#opens(content, 'encrypted_stdout', `${at}.content`);
		(Array.isArray(content) ? content : list(content?.content)).forEach((inner, i) => {
			if (inner?.type === 'web_search_result')
				this.#opens(inner, 'encrypted_content', `${at}.content.${i}`);
			if (inner?.type === 'bash_code_execution_output' || inner?.type === 'code_execution_output')
				this.#checkFile(inner.file_id);
			if (inner?.source?.type === 'file')
				this.#checkFile(inner.source.file_id);
		});
	}

	#opens(thing, member, at) {
		if (!this.owns(member, thing[member]))
			throw invalid(`${at}: Invalid \`${member}\` in \`${thing.type}\` block`);
	}

	#checkFile(id) {
		if (!this.owns('file', id))
			throw missing(`File not found: ${id}`);
	}

	/**
	 * With `thinking` enabled, the turn whose tool call is being answered begins
	 * with the thought that led to it. Several rounds of tools are one turn.
	 */
	#checkToolLoop(body) {
		const messages = list(body.messages);
		if (body.thinking?.type !== 'enabled' || !answersTool(messages.at(-1)))
			return;
		const begin = turnBegin(messages), i = messages.findIndex((m, at) => at >= begin && m.role === 'assistant');
		const first = list(messages[i]?.content)[0];
		if (first && first.type !== 'thinking' && first.type !== 'redacted_thinking')
			throw invalid(`messages.${i}.content.0.type: Expected \`thinking\` or \`redacted_thinking\`, but found \`${first.type}\`. ${EXPECTED_THINKING}`);
	}
}

function answersTool(message) {
	return message?.role === 'user' && list(message.content).some((b) => b?.type === 'tool_result');
}

/** Where the turn that is going on began: at the last message of a person. */
function turnBegin(messages) {
	let begin = messages.length - 1;
	while (begin > 0 && (messages[begin].role === 'assistant' || answersTool(messages[begin])))
		begin--;
	return begin;
}

/** How often tools have been answered in the turn that is going on. */
export function toolRounds(messages) {
	return messages.slice(turnBegin(messages)).filter(answersTool).length;
}
