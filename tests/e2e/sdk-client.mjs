// One run of an official SDK against a base URL, as a program of its own, so
// that it can be given a private CA (NODE_EXTRA_CA_CERTS). Reads a JSON job
// from stdin, prints a JSON result. The bytes that the SDK was given are hashed
// beside its own reading of them.

import { createHash } from 'node:crypto';

const { sdk, baseURL, apiKey, jobs } = JSON.parse(await text(process.stdin));
const { default: Anthropic, ...names } = await import(sdk);

async function text(stream) {
	const parts = [];
	for await (const part of stream)
		parts.push(part);
	return Buffer.concat(parts).toString('utf8');
}

/** A fetch that counts its calls and hashes every body that it hands on. */
let calls = 0, hash;
async function watched(url, init) {
	calls++;
	const response = await fetch(url, init);
	hash = createHash('sha256');
	const seen = response.body?.pipeThrough(new TransformStream({
		transform(chunk, controller) {
			hash.update(chunk);
			controller.enqueue(chunk);
		},
	}));
	return new Response(seen, { status: response.status, headers: response.headers });
}

const client = new Anthropic({ baseURL, apiKey, fetch: watched });

const KINDS = {
	async create(params) {
		const { data, request_id, response } = await client.messages.create(params).withResponse();
		return { message: data, requestId: request_id ?? response.headers.get('request-id') };
	},
	async events(params) {
		const events = {};
		const stream = await client.messages.create({ ...params, stream: true });
		for await (const event of stream)
			events[event.type] = (events[event.type] ?? 0) + 1;
		return { events };
	},
	async helper(params) {
		const stream = client.messages.stream(params);
		let texts = 0, inputs = 0, thoughts = 0;
		stream.on('text', () => texts++).on('inputJson', () => inputs++).on('thinking', () => thoughts++);
		return { message: await stream.finalMessage(), texts, inputs, thoughts };
	},
	async count(params) {
		return client.messages.countTokens(params);
	},
	async models() {
		const ids = [];
		for await (const model of client.models.list({ limit: 5 }))
			ids.push(model.id);
		return { ids, one: await client.models.retrieve(ids[0]) };
	},
};

const results = [];
for (const { kind, params } of jobs) {
	calls = 0;
	const begin = Date.now();
	let result;
	try {
		result = await KINDS[kind](params);
	} catch (error) {
		const known = Object.entries(names).find(([, type]) => typeof type === 'function' && error.constructor === type);
		result = { error: known?.[0] ?? error.constructor.name, status: error.status, type: error.type ?? error.error?.error?.type,
			message: error.message, requestId: error.requestID ?? error.request_id };
	}
	results.push({ ...result, calls, ms: Date.now() - begin, sha256: hash?.digest('hex') });
	hash = undefined;
}
process.stdout.write(JSON.stringify(results));
