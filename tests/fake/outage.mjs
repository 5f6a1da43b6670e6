// How an account fails while somebody says so: an outage goes before what the
// prompts ask for, so that one request text works at all accounts.
//
// Most outages are scripts. Two are not about answers: a listener that is
// closed, and a certificate for another host.

const RETRY_AFTER_S = 1;

export const OUTAGES = {
	refused: { closed: true },
	stranger: { stranger: true },
	reset: { script: { fault: { kind: 'reset_before_head' } } },
	silent: { script: { fault: { kind: 'stall_before_head' } } },
	internal: { script: { error: 'internal' } },
	overloaded: { script: { error: 'overloaded' } },
	rate_limit: { script: { status: 429, error_type: 'rate_limit_error', headers: [['retry-after', String(RETRY_AFTER_S)]] } },
	tier_cap: { script: { error: 'tier_cap' } },
	credential: { script: { error: 'authentication' } },
	billing: { script: { error: 'billing' } },
	permission: { script: { error: 'permission' } },
	overloaded_first: { script: { error_after: 0 } },
	overloaded_started: { script: { error_after: 1 } },
	stalled: { script: { fault: { kind: 'stall', after_events: 4 } } },
	broken: { script: { fault: { kind: 'reset', after_events: 4 } } },
	slow: { script: { every: 48, gap_ms: 4 } },
};

export class Outage {
	mode = null;

	/** {mode: a name of OUTAGES, or null: none; script: more members for its script}. Throws for an unknown name. */
	set({ mode = null, script = {} }) {
		if (mode !== null && !Object.hasOwn(OUTAGES, mode))
			throw new Error(`there is no outage "${mode}"`);
		this.mode = mode;
		this.kind = mode === null ? {} : OUTAGES[mode];
		this.script = this.kind.script ? { ...this.kind.script, ...script } : null;
	}

	kind = {};
	script = null;
}
