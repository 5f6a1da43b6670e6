"""What is measured (weir, nginx) and what stands behind it (upstream, TLS front)."""
import http.client
import json
import os
import socket
import subprocess
import time

import bodies
import harness
from harness import Fault

NGINX_BASE = """\
worker_processes 1;
worker_rlimit_nofile 16384;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
events {{ worker_connections 8192; }}
http {{
	client_body_temp_path {dir}/body;
	proxy_temp_path {dir}/proxy;
	fastcgi_temp_path {dir}/fastcgi;
	uwsgi_temp_path {dir}/uwsgi;
	scgi_temp_path {dir}/scgi;
	keepalive_requests 1000000000;
	client_body_buffer_size 128k;
	upstream backend {{
		server 127.0.0.1:{upstream};
		keepalive 2048;
		keepalive_requests 1000000000;
	}}
	proxy_http_version 1.1;
	proxy_set_header Connection "";
{http}
}}
"""

NGINX_PROXY = """\
	access_log {dir}/access.log combined;
	server {{
		listen 127.0.0.1:{port} backlog=4096;
		location / {{
			proxy_pass {scheme}://backend;
			proxy_read_timeout 600s;
			proxy_buffering {buffering};
{tls}
		}}
	}}"""

NGINX_TLS_UPSTREAM = """\
			proxy_ssl_verify on;
			proxy_ssl_trusted_certificate {cert};
			proxy_ssl_name localhost;
			proxy_ssl_server_name on;
			proxy_ssl_protocols TLSv1.2 TLSv1.3;"""

NGINX_TLS_FRONT = """\
	access_log off;
	server {{
		listen 127.0.0.1:{port} ssl backlog=4096;
		ssl_certificate {cert};
		ssl_certificate_key {key};
		ssl_protocols TLSv1.2 TLSv1.3;
		location / {{ proxy_pass http://backend; }}
	}}"""


NGINX_CACHED = """\
	access_log {dir}/access.log combined;
	proxy_cache_path {dir}/cache keys_zone=answers:10m;
	server {{
		listen 127.0.0.1:{port} backlog=4096;
		location / {{
			proxy_pass http://backend;
			proxy_cache answers;
			proxy_cache_methods POST;
			proxy_cache_key "$request_uri $request_body";
			proxy_cache_valid 200 1h;
		}}
	}}"""


NO_SECRET = "weir_sk_" + "0" * 43  # for those who look at no key


def write_head(folder, secret, few=False):
    """The file of header lines that the load generator sends."""
    name = os.path.join(folder, "head.txt")
    with open(name, "w", newline="") as f:
        f.write(bodies.head(secret, few))
    return name


def ask(port, method, path, headers=None, body=None, timeout=30):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Upstream:
    """The fast upstream, on the load's core. <few>: few headers, in answers and in the requests to them."""

    def __init__(self, bench, few=False):
        self.few = few
        self.head_file = write_head(bench.dir, NO_SECRET, few)
        self.process = harness.spawn([bench.tool("bench_upstream"), "--headers", "few" if few else "all"], bench.load_core,
                                     stdout=subprocess.PIPE)
        self.port = harness.read_line(self.process, "bench_upstream")["port"]

    def pace(self, events, rate):
        status, text = ask(self.port, "GET", f"/__pace?events={events}&rate={rate}")
        if status != 200 or b"error" in text:
            raise Fault(f"bench_upstream: refused a pace of {events} events at {rate} a second")

    def stats(self):
        return json.loads(ask(self.port, "GET", "/__stats")[1])

    def stop(self):
        harness.end(self.process)
        self.process.stdout.close()


class Proxy:
    """A proxy in a folder of its own; start() returns milliseconds from exec to the first answer."""

    def __init__(self, bench, name, upstream, tls=None):
        self.bench, self.name = bench, name
        self.upstream, self.tls = upstream, tls
        self.dir = os.path.join(bench.dir, name)
        os.makedirs(self.dir)
        os.chmod(self.dir, 0o755)
        self.process = self.log = None
        self.core = bench.proxy_core
        self.secret = NO_SECRET
        self.head_file = write_head(self.dir, self.secret, upstream.few)

    def argv(self):
        raise NotImplementedError

    def configure(self):
        raise NotImplementedError

    def first_answer(self):
        """True once a governed request was answered."""
        headers = dict(line.split(": ", 1) for line in bodies.head(self.secret).splitlines())
        try:
            status, text = ask(self.port, "POST", "/v1/messages?beta=true", headers, bodies.body(1024, False))
        except (OSError, http.client.HTTPException):
            return False
        if status != 200:
            raise Fault(f"{self.name}: the first request got status {status}: {text[:300].decode(errors='replace')}")
        return True

    def start(self, wrapper=(), seconds=120):
        self.port = harness.free_port()
        self.configure()
        self.log = open(os.path.join(self.dir, "output.log"), "ab")
        begin = time.perf_counter()
        self.process = harness.spawn([*wrapper, *self.argv()], self.core, stdout=self.log, stderr=self.log)
        def answered():
            if self.process.poll() is not None:
                raise Fault(f"{self.name}: ended at start with status {self.process.returncode}: {self.last_words()}")
            return self.first_answer()
        harness.wait_for(answered, f"{self.name}: first answer", seconds, pause_s=0.0005)
        return (time.perf_counter() - begin) * 1000

    def last_words(self):
        with open(os.path.join(self.dir, "output.log"), errors="replace") as f:
            return " | ".join(f.read().strip().splitlines()[-3:]) or "no output"

    def pids(self):
        return harness.family(self.process.pid)

    def stop(self, patience_s=15):
        if self.process is not None:
            harness.end(self.process, patience_s)
            self.log.close()
            self.process = None


class Nginx(Proxy):
    """proxy_pass with keep-alive on both sides and an access log, written as nginx does by default."""
    buffering = "on"

    def configure(self):
        tls = NGINX_TLS_UPSTREAM.format(cert=self.tls.cert) if self.tls else ""
        http_part = NGINX_PROXY.format(dir=self.dir, port=self.port, scheme="https" if self.tls else "http",
                                       buffering=self.buffering, tls=tls)
        self.write(http_part, self.tls.port if self.tls else self.upstream.port)

    def write(self, http_part, upstream_port):
        with open(os.path.join(self.dir, "nginx.conf"), "w") as f:
            f.write(NGINX_BASE.format(dir=self.dir, upstream=upstream_port, http=http_part))

    def argv(self):
        return [self.bench.nginx, "-p", self.dir, "-c", os.path.join(self.dir, "nginx.conf"), "-g", "daemon off;"]


class NginxStream(Nginx):
    """The same with proxy_buffering off, as event streams need it."""
    buffering = "off"


class NginxCached(Nginx):
    """Answers from proxy_cache, by the request's path and body."""

    def configure(self):
        self.write(NGINX_CACHED.format(dir=self.dir, port=self.port), self.upstream.port)


class TlsFront(Nginx):
    """Ends TLS before the upstream, for both proxies alike; it runs on the load's core."""

    def __init__(self, bench, upstream):
        super().__init__(bench, "tls-front", upstream)
        self.core = bench.load_core
        self.cert, self.key = os.path.join(self.dir, "cert.pem"), os.path.join(self.dir, "key.pem")
        made = subprocess.run(
            [bench.openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", self.key, "-out", self.cert],
            capture_output=True, text=True)
        if made.returncode != 0:
            raise Fault(f"openssl could not make a certificate: {made.stderr.strip()}")

    def configure(self):
        self.write(NGINX_TLS_FRONT.format(port=self.port, cert=self.cert, key=self.key), self.upstream.port)

    def first_answer(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


class Weir(Proxy):
    """Everything on: a key with a rate limit and a budget, a metadata header, records."""
    more, key_options = {}, []

    def __init__(self, bench, name, upstream, tls=None):
        super().__init__(bench, name, upstream, tls)
        self.program = bench.weir
        self.settings = os.path.join(self.dir, "weir.json")

    def configure(self):
        provider = {"slug": "anthropic", "type": "anthropic", "api_key": "sk-ant-bench",
                    "base_url": f"https://localhost:{self.tls.port}" if self.tls else f"http://127.0.0.1:{self.upstream.port}"}
        if self.tls:
            provider["ca_file"] = self.tls.cert
        settings = self.more | {
            "listen": [f"127.0.0.1:{self.port}"], "admin": {"listen": "127.0.0.1:0"}, "workers": 1,
            "data_dir": os.path.join(self.dir, "data"), "run_dir": os.path.join(self.dir, "run"),
            "limits": {"drain_ms": 2000}, "providers": [provider], "default_provider": "anthropic",
        }
        if os.geteuid() == 0:
            settings["user"] = "root"  # the folder is ours; nothing to protect here
        with open(self.settings, "w") as f:
            json.dump(settings, f, indent=1)
        if self.secret == NO_SECRET:
            self.secret = self.make_key()
            self.head_file = write_head(self.dir, self.secret, self.upstream.few)

    def make_key(self):
        made = subprocess.run(
            [self.program, "key", "create", "--config", self.settings, "--slug", "bench", "--workspace", "bench",
             "--rpm", "100000000", "--budget", "100000000", "--budget-period", "monthly",
             "--metadata", '{"cost_center":"cc-7"}', "--model", "claude-*", "--json", *self.key_options], capture_output=True, text=True)
        if made.returncode != 0:
            raise Fault(f"weir key create: {made.stderr.strip()}")
        return json.loads(made.stdout)["secret"]

    def argv(self):
        return [self.program, "serve", "--config", self.settings]


class WeirCached(Weir):
    """The same, with a config that keeps answers."""
    more = {"configs": [{"slug": "cached", "config": {"cache": {"mode": "simple", "max_age": 3600}}}]}
    key_options = ["--routing-config", "cached"]
