// An account's prompt cache: which beginnings of prompts it has seen, by model.
//
// A prompt is tools, system and messages, in this order, as a chain of digests
// over its pieces without their cache_control. Each marker keeps the beginning
// that ends there, for five minutes or an hour from its last use. A later prompt
// reads the longest beginning that is kept, looking back at most LOOK_BACK
// pieces from each of its own markers, as the real one does; the rest up to its
// last marker is written, what follows is plain input.

import { createHash } from 'node:crypto';

const LOOK_BACK = 20;
const TOKENS_MIN = 1024;	/* shorter beginnings are not kept, silently */
const KEPT_MAX = 20000;
const TTL_MS = { '5m': 5 * 60000, '1h': 60 * 60000 };

const list = (value) => (Array.isArray(value) ? value : []);

/** [{text, ttl}] in the order of the rendered prompt; ttl of a marker, or null. */
function piecesOf(body) {
	const pieces = [];
	const add = (thing, mark) => {
		const { cache_control, ...rest } = typeof thing === 'string' ? { type: 'text', text: thing } : thing;
		const marker = cache_control ?? mark;
		pieces.push({ text: JSON.stringify(rest), ttl: marker?.type === 'ephemeral' ? marker.ttl ?? '5m' : null });
	};
	const blocks = (content) => (typeof content === 'string' ? [content] : list(content));
	list(body.tools).forEach((tool) => add(tool));
	blocks(body.system).forEach((block) => add(block));
	for (const message of body.messages)
		for (const block of blocks(message.content))
			add(block);
	if (body.cache_control && pieces.length > 0)	/* at the top: the last piece is marked */
		pieces.at(-1).ttl ??= body.cache_control.ttl ?? '5m';
	return pieces;
}

export class PromptCache {
	#kept = new Map();	/* "model digest" -> {until, ttl}, the oldest first */

	/** What this prompt reads, writes and pays in full, as members of `usage`. */
	use(body, nowMs) {
		let digest = '', bytes = 0;
		const points = piecesOf(body).map(({ text, ttl }) => {
			digest = createHash('sha256').update(digest).update(text).digest('hex');
			bytes += Buffer.byteLength(text);
			return { key: `${body.model} ${digest}`, ttl, tokens: Math.ceil(bytes / 4) };
		});
		const marked = points.flatMap((p, i) => (p.ttl && p.tokens >= TOKENS_MIN ? [i] : []));
		const read = Math.max(0, ...marked.map((i) => this.#found(points, i, nowMs)));
		const last = marked.length > 0 ? points[marked.at(-1)].tokens : 0;
		const hour = Math.max(read, ...marked.filter((i) => points[i].ttl === '1h').map((i) => points[i].tokens));
		for (const i of marked)
			this.#keep(points[i].key, points[i].ttl, nowMs);
		return {
			input_tokens: (points.at(-1)?.tokens ?? 0) - Math.max(last, read), cache_read_input_tokens: read,
			cache_creation_input_tokens: Math.max(0, last - read),
			cache_creation: { ephemeral_5m_input_tokens: Math.max(0, last - hour), ephemeral_1h_input_tokens: hour - read },
		};
	}

	/** Tokens of the longest beginning that is kept, seen from marker i. */
	#found(points, i, nowMs) {
		for (let at = i; at >= 0 && at > i - LOOK_BACK; at--) {
			const entry = this.#kept.get(points[at].key);
			if (entry && entry.until > nowMs) {
				this.#keep(points[at].key, entry.ttl, nowMs);
				return points[at].tokens;
			}
		}
		return 0;
	}

	#keep(key, ttl, nowMs) {
		const longest = Math.max(this.#kept.get(key)?.until ?? 0, nowMs + TTL_MS[ttl]);
		this.#kept.delete(key);
		this.#kept.set(key, { until: longest, ttl });
		if (this.#kept.size > KEPT_MAX)
			this.#kept.delete(this.#kept.keys().next().value);
	}
}
