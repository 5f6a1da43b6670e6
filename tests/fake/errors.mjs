// Answers of the kind that the provider gives when it refuses, by name.
//
// The bodies differ on purpose in everything that a gateway could disturb by
// parsing them: spacing, order and number of members, escapes, non-ASCII text,
// a body that is not JSON at all. Clients match on this wording, so each has to
// arrive byte for byte.

const JSON_TYPE = ['content-type', 'application/json'];

function error(status, body, ...headers) {
	return { status, headers: [headers.some(([n]) => n === 'content-type') ? null : JSON_TYPE, ...headers].filter(Boolean), body };
}

export const ERRORS = {
	max_tokens_missing: error(400, '{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: Field required"},"request_id":"req_011CfakeA1"}'),
	prompt_too_long: error(400, '{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 1043221 tokens > 1000000 maximum"},"request_id":"req_011CfakeA2"}'),
	input_plus_output: error(400, '{"type":"error","error":{"type":"invalid_request_error","message":"input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length or `max_tokens` and try again"},"request_id":"req_011CfakeA3"}'),
	thinking_signature: error(400, '{"type":"error","error":{"type":"invalid_request_error","message":"messages.1.content.0: Invalid `signature` in `thinking` block"},"request_id":"req_011CfakeA4"}'),
	thinking_bound: error(400, '{"type": "error", "error": {"type": "invalid_request_error", "message": "messages.3.content.0: this `thinking` block is bound to a different conversation", "details": {"error_code": "thinking_prefix_mismatch"}}, "request_id": "req_011CfakeA5"}'),
	extra_inputs: error(400, '{"type":"error","error":{"type":"invalid_request_error","message":"context_management: Extra inputs are not permitted"},"request_id":null}'),
	advisor_tag: error(400, '{"type":"error","error":{"type":"invalid_request_error","message":"tools.4: Input tag \'advisor_20260301\' found using \'type\' does not match any of the expected tags"},"request_id":"req_011CfakeA7"}'),
	image_too_large: error(400, '{"type":"error","error":{"type":"invalid_request_error","message":"image dimensions exceed max allowed size","details":{"error_code":"image_dimensions_too_large","max_side_length_pixels":8000,"paths":["messages.0.content.1"]}},"request_id":"req_011CfakeA8"}'),
	credit: error(400, '{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API."}}', ['x-should-retry', 'false']),
	unicode: error(400, '{\n  "type": "error",\n  "error": {"message": "tool \\u201esuche\\u201c: Gr\u00f6\u00dfe \\ud83d\\ude00 \u6f22\u5b57", "type": "invalid_request_error"},\n  "request_id": "req_011CfakeB1"\n}\n', ['content-type', 'application/json; charset=utf-8']),
	authentication: error(401, '{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"},"request_id":"req_011CfakeB2"}'),
	oauth_expired: error(401, '{"type":"error","error":{"type":"authentication_error","message":"OAuth token has expired."},"request_id":"req_011CfakeB3"}', ['x-should-retry', 'true']),
	billing: error(402, '{"type":"error","error":{"type":"billing_error","message":"There is a problem with your billing or payment information."},"request_id":"req_011CfakeB4"}'),
	permission: error(403, '{"type":"error","error":{"type":"permission_error","message":"Your API key does not have permission to use the specified resource."},"request_id":"req_011CfakeB5"}'),
	edge_forbidden: error(403, '<!DOCTYPE html><html><head><title>403 Forbidden</title></head><body>edge</body></html>\n', ['content-type', 'text/html']),
	model_not_found: error(404, '{"type":"error","error":{"type":"not_found_error","message":"model: claude-nonesuch-9"},"request_id":"req_011CfakeB7"}'),
	conflict: error(409, '{"type":"error","error":{"type":"conflict_error","message":"thread continue in flight","details":{"error_code":"thread_continue_in_flight"}},"request_id":"req_011CfakeB8"}'),
	too_large: error(413, '{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum allowed number of bytes."},"request_id":"req_011CfakeB9"}'),
	edge_too_large: error(413, '413 Request Entity Too Large', ['content-type', 'text/plain']),
	unprocessable: error(422, '{"type":"error","error":{"type":"invalid_request_error","message":"unprocessable"},"unknown":[1,2.50,1e3,9007199254740993]}'),
	rate_limit: error(429, '{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization\u2019s rate limit of 400,000 input tokens per minute."},"request_id":"req_011CfakeC1"}',
		['retry-after', '17'], ['retry-after-ms', '16500'], ['anthropic-ratelimit-requests-remaining', '0']),
	rate_limit_date: error(429, '{"type":"error","error":{"type":"rate_limit_error","message":"Number of concurrent connections has exceeded your rate limit"},"request_id":"req_011CfakeC2"}', ['retry-after', '3600'], ['x-should-retry', 'true']),
	spend_cap: error(429, '{"type":"error","error":{"type":"rate_limit_error","message":"spend limit","details":{"error_code":"enforced_spend_limit_reached"}},"request_id":"req_011CfakeC3"}', ['x-should-retry', 'false']),
	tier_cap: error(429, '{"type":"error","error":{"type":"rate_limit_error","message":"You have reached your API usage limits for this tier."},"request_id":"req_011CfakeC5"}'),
	internal: error(500, '{"type":"error","error":{"type":"api_error","message":"Internal server error"},"request_id":"req_011CfakeC4"}'),
	internal_empty: error(500, ''),
	bad_gateway: error(502, '<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>\r\n', ['content-type', 'text/html; charset=UTF-8']),
	unavailable: error(503, '{"type":"error","error":{"type":"api_error","message":"cmek key unavailable","details":{"error_code":"cmek_unavailable"}},"request_id":"req_011CfakeC7"}', ['retry-after', '2']),
	timeout: error(504, '{"type":"error","error":{"type":"timeout_error","message":"Request timed out"},"request_id":"req_011CfakeC8"}'),
	overloaded: error(529, '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_011CfakeC9"}', ['x-should-retry', 'true']),
};

/** The provider's own envelope, for what its checks refuse. */
export function envelope(type, message, requestId, details) {
	return Buffer.from(JSON.stringify({ type: 'error', error: { type, message, details }, request_id: requestId }));
}

export const REASONS = {
	200: 'OK', 400: 'Bad Request', 401: 'Unauthorized', 402: 'Payment Required', 403: 'Forbidden', 404: 'Not Found',
	405: 'Method Not Allowed', 409: 'Conflict', 411: 'Length Required', 413: 'Content Too Large', 415: 'Unsupported Media Type',
	422: 'Unprocessable Content', 429: 'Too Many Requests', 500: 'Internal Server Error', 502: 'Bad Gateway', 503: 'Service Unavailable',
	504: 'Gateway Timeout', 529: 'Overloaded',
};
