# Functions of test-debian13 and test-container: a minimal Debian 13 root, made
# by debootstrap. Wants $root, the checkout, and die().
suite=trixie

# The mirror that this machine uses, so that a local one or a proxy serves both.
mirror() {
	local site
	site=$(apt-get indextargets --format '$(SITE) $(COMPONENT)' 2>/dev/null | awk '$2 == "main" && $1 ~ /\/debian\/?$/ { print $1; exit }')
	printf '%s' "${site:-http://deb.debian.org/debian}"
}

# make_root FOLDER LOG: complete, or not there at all.
make_root() {
	local folder=$1 log=$2 proxy
	proxy=$(apt-config dump --format '%v' Acquire::http::Proxy)
	mkdir -p "$(dirname "$folder")"
	rm -rf --one-file-system "$folder" "$folder.partial"
	env ${proxy:+http_proxy="$proxy"} debootstrap --variant=minbase --include=ca-certificates "$suite" "$folder.partial" "$(mirror)" >"$log" 2>&1 ||
		{ tail -5 "$log"; die "debootstrap failed; the whole log: $log"; }
	mv "$folder.partial" "$folder"
}

# The root sees the network as this machine does: names, proxies, authorities.
share_network() {
	local folder=$1 from
	from=$(mirror)
	printf '%s\n' "deb $from $suite main" "deb $from $suite-updates main" "deb ${from%/debian*}/debian-security $suite-security main" \
		>"$folder/etc/apt/sources.list"
	cp -L /etc/resolv.conf /etc/hosts "$folder/etc/"
	apt-config dump | grep -E '^Acquire::(http|https|Retries)' >"$folder/etc/apt/apt.conf.d/90host" || true
	mkdir -p "$folder/usr/local/share/ca-certificates"
	find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$folder/usr/local/share/ca-certificates/" \; 2>/dev/null || true
	chroot "$folder" update-ca-certificates >/dev/null 2>&1
}
