// What an answer costs, by the provider's own reckoning.
//
// It shares deploy/prices.json with weir and nothing else: the formula is
// written anew, in whole numbers of any size, so that the two agree only if
// both are right.
//
//	part	= tokens of a model, by class, times that model's rates of the day
//		  (a longer prompt may have other rates, for every token)
//	answer	= all parts, times batch, place and speed; plus the searches
//
// An answer with `iterations` is the sum of these; its top-level tokens are
// then not counted. One rounding, half up, from pico- to nano-dollars.

const THOUSAND = 1000n;

export class PriceList {
	constructor(document) {
		this.models = new Map(document.models.filter((m) => (m.provider ?? 'anthropic') === 'anthropic').map((m) => [m.model, m]));
	}

	/** The rates of a model at a time in ms, or null. */
	rates(model, atMs) {
		const row = this.models.get(model) ?? this.models.get(model.replace(/-20\d{6}$/, ''));
		const day = new Date(atMs).toISOString().slice(0, 10);
		return row?.prices.filter((p) => (p.valid_from ?? '1970-01-01') <= day).at(-1) ?? null;
	}

	/** Nano-dollars as a BigInt; 0 for a model that has no price. */
	cost(model, usage, atMs) {
		const main = this.rates(model, atMs);
		if (!main)
			return 0n;
		const parts = usage.iterations?.length ? usage.iterations : [usage];
		let pico = 0n;
		const scale = THOUSAND * THOUSAND * THOUSAND;
		for (const part of parts) {
			const rates = part.model ? this.rates(part.model, atMs) : main;
			if (!rates)
				continue;
			pico += tokensCost(part, rates) * factors(usage, rates);
		}
		const searches = count(usage.server_tool_use?.web_search_requests);
		pico += searches * BigInt(main.web_search ?? 10000000000) * scale;
		const nano = scale * THOUSAND;
		return (2n * pico + nano) / (2n * nano);
	}
}

const count = (n) => BigInt(n ?? 0);

function tokensCost(part, rates) {
	const writes1h = count(part.cache_creation?.ephemeral_1h_input_tokens);
	const split = writes1h + count(part.cache_creation?.ephemeral_5m_input_tokens);
	const writes = count(part.cache_creation_input_tokens);
	const writes5m = (writes > split ? writes : split) - writes1h;	/* what is not split counts as 5 minutes */
	const input = count(part.input_tokens), read = count(part.cache_read_input_tokens);
	const prompt = input + read + writes5m + writes1h;
	const band = (rates.steps ?? []).filter((s) => prompt > BigInt(s.above_prompt_tokens)).at(-1) ?? rates;
	const base = BigInt(band.input);
	const rate = (name, fallback) => (band[name] === undefined ? fallback : BigInt(band[name]));
	return input * base + count(part.output_tokens) * BigInt(band.output)
		+ writes5m * rate('cache_write_5m', base * 5n / 4n) + writes1h * rate('cache_write_1h', base * 2n)
		+ read * rate('cache_read', base / 10n);
}

/** Batch, place and speed: three numbers in thousandths, multiplied. */
function factors(usage, rates) {
	const batch = usage.service_tier === 'batch' ? rates.batch_multiplier_permille ?? 500 : 1000;
	const place = usage.inference_geo === 'us' ? rates.geo_us_permille ?? 1100 : 1000;
	const speed = usage.speed === 'fast' ? rates.fast?.permille ?? 6000 : 1000;
	return BigInt(batch) * BigInt(place) * BigInt(speed);
}
