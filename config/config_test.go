package config

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// minimal is the least that a node needs.
const minimal = `
node: {name: n1, data: /var/lib/shoal}
advertise: {host: n1}
disks: [/mnt/d1]
cluster: {secret: 0123456789abcdef}
credentials: [{access_key: admin, secret_key: admin-secret}]
`

func TestMinimalTakesDefaults(t *testing.T) {
	c, err := Parse([]byte(minimal), nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.Weight != 1 || c.Defaults.Inline != 128<<10 || c.Region != "us-east-1" || c.Limits.Requests != 4096 {
		t.Errorf("defaults missing: %+v", c)
	}
	for _, a := range []struct{ got, want string }{
		{c.AdvertisedClient(), "n1:7070"},
		{c.AdvertisedPeer(), "n1:7170"},
		{c.AdvertisedBus(), "n1:7270"},
		{c.AdvertisedRoute(), "n1:7370"},
	} {
		if a.got != a.want {
			t.Errorf("advertised: got %s, want %s", a.got, a.want)
		}
	}
}

func TestExampleIsAcceptedAndShowsEveryKey(t *testing.T) {
	c, err := Parse([]byte(Example()), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Disks) != 2 || c.Node.Name != "n1" || len(c.Cluster.Seeds) != 2 {
		t.Errorf("example not read: %+v", c)
	}
	for _, key := range Keys() {
		leaf := key[strings.LastIndexByte(key, '.')+1:]
		if !regexp.MustCompile(`(?m)^[ #-]*` + leaf + `:`).MatchString(Example()) {
			t.Errorf("the example does not show %s", key)
		}
	}
}

// TestExampleCommentsAreTrue uncomments each commented-out key of the sections
// and wants it to be known.
func TestExampleCommentsAreTrue(t *testing.T) {
	text := regexp.MustCompile(`(?m)^( *)#(\S)`).ReplaceAllString(Example(), "$1$2")
	text = regexp.MustCompile(`(accounts|roots): \{\}`).ReplaceAllString(text, "$1:")
	text = regexp.MustCompile(`(?m)^ +(profile|anonymous): .*\n`).ReplaceAllString(text, "")
	_, err := Parse([]byte(text), nil)
	if err == nil {
		t.Fatal("secret and secret_file together were accepted")
	}
	if strings.Contains(err.Error(), "unknown key") || strings.Contains(err.Error(), "backends") || !strings.Contains(err.Error(), "cluster.secret_file") {
		t.Errorf("got %v, want only a complaint about secret_file", err)
	}
}

func TestEnvironmentOverrides(t *testing.T) {
	c, err := Parse([]byte(minimal), []string{
		"SHOAL_NODE_NAME=n7", "SHOAL_LIMITS_RECONCILE_BANDWIDTH=10MiB", "SHOAL_DISKS=/a, /b",
		"SHOAL_CREDENTIALS=one:secret-1,two:secret-2", "SHOAL_CLUSTER_SEEDS=n1:7170,n2:7170",
		"SHOAL_TLS_CLIENT_CERT=c.pem", "SHOAL_TLS_CLIENT_KEY=k.pem", "SHOAL_ADVERTISE_PEER=10.0.0.7:99",
		// Not ours: the client's, Kubernetes's, somebody else's.
		"SHOAL_ENDPOINT=http://x", "SHOAL_ACCESS_KEY=x", "SHOAL_NODE_SERVICE_HOST=1.2.3.4", "SHOAL_NODE_PORT_7070_TCP=x", "HOME=/",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.Name != "n7" || c.Limits.ReconcileBandwidth != 10<<20 || len(c.Disks) != 2 || c.Disks[1].Path != "/b" {
		t.Errorf("not overridden: %+v", c)
	}
	if len(c.Credentials) != 2 || c.Credentials[1] != (Credential{"two", "secret-2"}) || len(c.Cluster.Seeds) != 2 {
		t.Errorf("lists not overridden: %+v %v", c.Credentials, c.Cluster.Seeds)
	}
	if c.AdvertisedPeer() != "10.0.0.7:99" || !c.TLS.Client.Enabled() {
		t.Errorf("got peer %s, TLS %v", c.AdvertisedPeer(), c.TLS.Client.Enabled())
	}
}

func TestEverythingFromEnvironment(t *testing.T) {
	c, err := Load("", []string{
		"SHOAL_NODE_NAME=n1", "SHOAL_NODE_DATA=/var/lib/shoal", "SHOAL_ADVERTISE_HOST=n1", "SHOAL_DISKS=/d",
		"SHOAL_CLUSTER_SECRET=0123456789abcdef", "SHOAL_CREDENTIALS=admin:admin-secret",
	})
	if err != nil || c.Node.Name != "n1" {
		t.Errorf("got %+v, %v", c.Node, err)
	}
}

// TestAllRefusalsAtOnce wants every wrong key told, whether it cannot be read or says
// what is not allowed, and nothing about a value that is not there only because it
// could not be read.
func TestAllRefusalsAtOnce(t *testing.T) {
	_, err := Parse([]byte("node: {name: N_1, colour: x, data: /n}\nlisten: {client: nope}\nadvertise: {host: a}\ndisks: {a: b}\nlimits: {cache: -1}\n"), []string{
		"SHOAL_NODE_SIZE=1", "SHOAL_CLUSTER_SECRET=0123456789abcdef", "SHOAL_CREDENTIALS=admin:admin-secret",
	})
	if err == nil {
		t.Fatal("nothing is refused")
	}
	lines := strings.Split(err.Error(), "\n")
	for _, path := range []string{"SHOAL_NODE_SIZE", "node.colour", "disks", "limits.cache", "node.name", "listen.client"} {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, path+": ") }) {
			t.Errorf("%s is not refused", path)
		}
	}
	if len(lines) != 6 {
		t.Errorf("got %d refusals, want 6:\n%v", len(lines), err)
	}
}

func TestRefusals(t *testing.T) {
	tests := []struct{ name, yaml, env, want string }{
		{"unknown section", "nodes: {}\nfoo: 1", "", `foo: unknown key; allowed here: node, listen,`},
		{"unknown key without value", "foo:", "", `foo: unknown key`},
		{"unknown key", "node: {colour: x}", "", `node.colour: unknown key; allowed here: name, zone, weight, data`},
		{"dotted key", "node.name: n1", "SHOAL_NODE_DATA=/var/lib/shoal", `node.name: unknown key`},
		{"unknown key in a list", "disks: [{path: /a, size: 3}]", "", `disks[0].size: unknown key; allowed here: path, weight`},
		{"section is a value", "node: n1", "", `node: want a section with keys, got "n1"`},
		{"value is a section", "region: {a: b}", "", `region: want text, got a section`},
		{"list is a section", "disks: {a: b}", "", `disks: want a list, got a section`},
		{"empty list item", "disks: [/a, ]\ncluster: {seeds: [~]}", "", `cluster.seeds[0]: has no value`},
		{"bad number", "node: {weight: much}", "", `node.weight: want a number, got "much"`},
		{"NaN", "node: {weight: .nan}", "", `node.weight: NaN: want a number, 0 or above`},
		{"negative weight", "disks: [{path: /a, weight: -1}]", "", `disks[0].weight: -1: want`},
		{"bad integer", "limits: {requests: 1.5}", "", `limits.requests: want a whole number, got 1.5`},
		{"bad size", "limits: {cache: 64 apples}", "", `limits.cache: "64 apples": want bytes, as 65536, 64KiB`},
		{"bad bool", "backends: {s3: {anonymous: maybe}}", "", `backends.s3.anonymous: want true or false, got "maybe"`},
		{"not a mapping", "- a", "", `not a YAML mapping`},
		{"not YAML", "a: [", "", `not a YAML mapping`},
		{"env names no key", "", "SHOAL_NODE_COLOUR=x", `SHOAL_NODE_COLOUR: names no key of section "node"; its keys: node.name,`},
		{"env under a value", "node: n1", "SHOAL_NODE_NAME=x", `SHOAL_NODE_NAME: node: the file has a value there`},
		{"env value", "", "SHOAL_LISTEN_PEER=nowhere", `listen.peer: "nowhere": want host:port`},
		{"node name", "node: {name: N_1}", "", `node.name: "N_1": want 1 to 63 of a-z`},
		{"no node name", "", "SHOAL_NODE_NAME=", `node.name: ""`},
		{"zone", "node: {zone: 'a,b'}", "", `node.zone: "a,b"`},
		{"no data", "", "SHOAL_NODE_DATA=", `node.data: is missing`},
		{"data on a disk", "node: {data: /mnt/d1/state}", "", `node.data: "/mnt/d1/state": lies on disks[0]`},
		{"no disks", "disks: []", "", `disks: is missing`},
		{"same disk twice", "disks: [/a, /a/]", "", `disks[1].path: "/a/": is disks[0] already`},
		{"disk within a disk", "disks: [/a, /a/b]", "", `disks[1].path: "/a/b": one of it and disks[0]`},
		{"disk without path", "disks: [{weight: 3}]", "", `disks[0].path: is missing`},
		{"port zero", "listen: {bus: ':0'}", "", `listen.bus: ":0": want a port from 1 to 65535`},
		{"port named", "listen: {bus: ':http'}", "", `listen.bus: ":http": want a port`},
		{"same port", "listen: {bus: ':7070'}", "", `listen.bus: ":7070": listen.client has the same port`},
		{"wildcard", "advertise: {host: ''}", "", `advertise.host: is missing: listen.client is ":7070"`},
		{"advertised host with port", "advertise: {host: 'http://n1'}", "", `advertise.host: "http://n1"`},
		{"advertised without port", "advertise: {peer: n1}", "", `advertise.peer: "n1": want host:port`},
		{"advertised wildcard", "advertise: {peer: '0.0.0.0:7170'}", "", `advertise.peer: "0.0.0.0:7170": want a host`},
		{"short secret", "cluster: {secret: abc}", "", `cluster.secret: want at least 16 characters`},
		{"missing secret file", "cluster: {secret_file: /does/not/exist}", "SHOAL_CLUSTER_SECRET=", `cluster.secret_file: open /does/not/exist`},
		{"seed", "cluster: {seeds: [n2]}", "", `cluster.seeds[0]: "n2": want host:port`},
		{"no credentials", "credentials: []", "", `credentials: is missing`},
		{"access key", "credentials: [{access_key: 'a/b', secret_key: 12345678}]", "", `credentials[0].access_key: "a/b"`},
		{"secret key", "credentials: [{access_key: abc, secret_key: x}]", "", `credentials[0].secret_key: want at least 8`},
		{"access key twice", "credentials: ['abc:12345678', 'abc:87654321']", "", `credentials[1].access_key: "abc": is that of credentials[0]`},
		{"half a key pair", "credentials: [abc]", "", `credentials[0]: want a section with keys, got "abc"`},
		{"bus key without url", "bus: {creds: f}", "", `bus.creds: only has a meaning with bus.url`},
		{"bus url", "bus: {url: 'http://x'}", "", `bus.url: "http://x": want nats://host:port`},
		{"bus cert", "bus: {url: 'nats://x:1', cert: c}", "", `bus.cert: bus.cert and bus.key come together`},
		{"bus user", "bus: {url: 'nats://x:1', user: u}", "", `bus.user: bus.user and bus.password come together`},
		{"bus creds and user", "bus: {url: 'nats://x:1', user: u, password: p, creds: c}", "", `bus.creds: bus.user is set too`},
		{"tls half", "tls: {client: {cert: c}}", "", `tls.client: cert and key come together`},
		{"tls ca alone", "tls: {client: {ca: c}}", "", `tls.client.ca: only has a meaning with`},
		{"tls bus ca", "tls: {bus: {cert: c, key: k}}", "", `tls.bus.ca: is missing`},
		{"tls bus half", "tls: {bus: {key: k}}", "", `tls.bus: cert and key come together`},
		{"tls of a bus outside", "tls: {bus: {cert: c, key: k, ca: a}}\nbus: {url: \"nats://h:1\"}", "", `tls.bus: only has a meaning for the embedded bus`},
		{"tls peer ca", "tls: {peer: {cert: c, key: k}}", "", `tls.peer.ca: is missing`},
		{"provider", "backends: {ftp: {}}\nlimits: {requests: 1}", "SHOAL_BACKENDS_FTP_ENDPOINT=x", `SHOAL_BACKENDS_FTP_ENDPOINT: names no key of section "backends"`},
		{"provider in the file", "backends: {ftp: {endpoint: x}}", "", `backends.ftp: unknown key; allowed here: s3, gs, http, file`},
		{"backends, a list", "backends: [{provider: s3}]", "", `backends: want a section with keys, got a list`},
		{"backend key unknown", "backends: {s3: {bucket: x}}", "", `backends.s3.bucket: unknown key; allowed here: endpoint, region, profile, access_key, secret_key, session_token, anonymous, path_style, conditions, requests, accounts`},
		{"account key unknown", "backends: {s3: {accounts: {a: {accounts: {}, colour: x}}}}", "", `backends.s3.accounts.a.colour: unknown key; allowed here: endpoint`},
		{"account name", "backends: {s3: {accounts: {'a b': {region: x}}}}", "", `backends.s3.accounts: "a b": want names of 1 to 63 of`},
		{"accounts as text", "", "SHOAL_BACKENDS_S3_ACCOUNTS=a:hidden", `backends.s3.accounts: want a section with names of your own`},
		{"account variable", "", "SHOAL_BACKENDS_S3_ACCOUNTS_A_COLOUR=x", `SHOAL_BACKENDS_S3_ACCOUNTS_A_COLOUR: names no key`},
		{"backend endpoint", "backends: {s3: {endpoint: x}}", "", `backends.s3.endpoint: want http://`},
		{"backend endpoint with a password", "backends: {gs: {accounts: {a: {endpoint: 'http://u:hidden@h'}}}}", "", `backends.gs.accounts.a.endpoint: want http://`},
		{"backend region", "backends: {s3: {region: 'eu west'}}", "", `backends.s3.region: "eu west"`},
		{"backend secret alone", "backends: {s3: {access_key: x}}", "", `backends.s3.access_key: access_key and secret_key`},
		{"backend token alone", "backends: {s3: {session_token: hidden}}", "", `backends.s3.session_token: only has a meaning`},
		{"backend ways", "backends: {s3: {accounts: {a: {profile: x, anonymous: true}}}}", "", `backends.s3.accounts.a: keep one of access_key, anonymous, profile`},
		{"backend ways of Google", "backends: {gs: {credentials_file: x, anonymous: true}}", "SHOAL_CREDENTIALS=admin:admin-secret", `backends.gs: keep one of anonymous, credentials_file`},
		{"backend no requests", "backends: {gs: {requests: 0}}", "", `backends.gs.requests: 0: want 1 to 4096`},
		{"backend many requests", "backends: {s3: {accounts: {a: {requests: 5000}}}}", "", `backends.s3.accounts.a.requests: 5000: want 0 to 4096`},
		{"allow", "backends: {http: {allow: ['*', 'http://h', 'https://*.h:81', h]}}", "", `backends.http.allow[3]: want http://host`},
		{"allow a path", "backends: {http: {allow: ['http://h/x']}}", "", `backends.http.allow[0]: want`},
		{"allow a pattern", "backends: {http: {allow: ['http://a*.h']}}", "", `backends.http.allow[0]: want`},
		{"root", "backends: {file: {roots: {a: mnt}}}", "", `backends.file.roots.a: "mnt": want an absolute path below /`},
		{"root of all", "backends: {file: {roots: {a: /}}}", "", `backends.file.roots.a: "/": want`},
		{"root name", "backends: {file: {roots: {-a: /srv}}}", "", `backends.file.roots: "-a": want names`},
		{"root without path", "backends: {file: {roots: {a: }}}", "", `backends.file.roots.a: has no value`},
		{"root around a disk", "backends: {file: {roots: {a: /mnt}}}", "", `backends.file.roots.a: "/mnt": one of it and disks[0]`},
		{"root in the data", "backends: {file: {roots: {a: /var/lib/shoal/x}}}", "", `backends.file.roots.a: "/var/lib/shoal/x": one of it and node.data`},
		{"roots as text", "", "SHOAL_BACKENDS_FILE_ROOTS=/srv", `backends.file.roots: want NAME:VALUE,NAME:VALUE`},
		{"scheme", "defaults: {scheme: ec-4}", "", `defaults.scheme: "ec-4": want none, mirror-N`},
		{"domain", "defaults: {domain: rack}", "", `defaults.domain: "rack": want one of node, disk`},
		{"inline", "defaults: {inline: 2MiB}", "", `defaults.inline: 2MiB: at most 1MiB`},
		{"requests", "limits: {requests: -1}", "", `limits.requests: -1: want 0`},
		{"watermarks", "space: {lowwm: 95}", "", `space.lowwm: 95: want less than highwm, 90`},
		{"watermark", "space: {highwm: 101}", "", `space: lowwm 75, highwm 101: want percentages`},
		{"region", "region: ''", "", `region: ""`},
		{"log level", "log: {level: loud}", "", `log.level: "loud": want one of debug, info, warn, error`},
		{"log format", "log: {format: xml}", "", `log.format: "xml": want one of text, json`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// The rest of what is needed comes from the environment, unless
			// the case is about it.
			env := []string{tt.env}
			for key, value := range map[string]string{
				"node.name": "n1", "node.data": "/var/lib/shoal", "advertise.host": "n1", "disks": "/mnt/d1",
				"cluster.secret": "0123456789abcdef", "credentials": "admin:admin-secret",
			} {
				section, leaf, _ := strings.Cut(key, ".")
				if !strings.Contains(tt.yaml, section) && !strings.Contains(tt.env, envName(key)) ||
					leaf != "" && strings.Contains(tt.yaml, section+": {") && !strings.Contains(tt.yaml, leaf+":") && !strings.Contains(tt.env, envName(key)) {
					env = append(env, envName(key)+"="+value)
				}
			}
			_, err := Parse([]byte(tt.yaml), env)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hidden") {
				t.Fatalf("got %v\nwant ... %s ...", err, tt.want)
			}
			if n := strings.Count(err.Error(), "\n"); n > 0 && !strings.HasPrefix(tt.want, "not a YAML") && tt.name != "unknown section" && tt.name != "env under a value" {
				t.Errorf("other complaints too:\n%v", err)
			}
		})
	}
}

func TestBackends(t *testing.T) {
	c, err := Parse([]byte(minimal+`
backends:
  s3:
    endpoint: http://127.0.0.1:9000
    path_style: on
    accounts:
      Train: {region: eu-west-1, access_key: k, secret_key: s, requests: 8}
      aws:
  gs: {accounts: {public: {anonymous: true}}}
  http: {allow: [http://h:81/, "https://*.example.net", "*"], requests: 7}
  file: {roots: {sets: /mnt/nfs/sets}}
`), []string{
		"SHOAL_BACKENDS_S3_ACCOUNTS_TRAIN_SECRET_KEY=other", "SHOAL_BACKENDS_S3_ACCOUNTS_TRAIN_EU_ENDPOINT=http://h",
		"SHOAL_BACKENDS_GS_PROJECT=p1", "SHOAL_BACKENDS_GS_ACCOUNTS_X_CREDENTIALS_FILE=/f",
	})
	if err != nil {
		t.Fatal(err)
	}
	s3 := c.Backends.S3
	if s3.Endpoint != "http://127.0.0.1:9000" || !s3.PathStyle || s3.Requests != 64 || len(s3.Accounts) != 3 {
		t.Errorf("got %+v", s3)
	}
	if a := s3.Accounts["train"]; a.Region != "eu-west-1" || a.SecretKey != "other" || a.Requests != 8 || a.Endpoint != "" {
		t.Errorf("account train: %+v", a)
	}
	if a, ok := s3.Accounts["aws"]; !ok || a != (S3Account{}) || s3.Accounts["train-eu"].Endpoint != "http://h" {
		t.Errorf("accounts %+v", s3.Accounts)
	}
	if gs := c.Backends.GS; gs.Project != "p1" || !gs.Accounts["public"].Anonymous || gs.Accounts["x"].CredentialsFile != "/f" || gs.Requests != 64 {
		t.Errorf("got %+v", gs)
	}
	if h := c.Backends.HTTP; len(h.Allow) != 3 || h.Requests != 7 || c.Backends.File.Roots["sets"] != "/mnt/nfs/sets" {
		t.Errorf("got %+v", c.Backends)
	}
	c, err = Parse([]byte(minimal), []string{"SHOAL_BACKENDS_FILE_ROOTS=sets:/mnt/nfs, x:/srv", "SHOAL_BACKENDS_HTTP_ALLOW=http://a,http://b:81"})
	if err != nil || len(c.Backends.File.Roots) != 2 || c.Backends.File.Roots["x"] != "/srv" || len(c.Backends.HTTP.Allow) != 2 {
		t.Errorf("from the environment: %+v, %v", c.Backends, err)
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	_, err := Parse([]byte("node: {name: X}\nlog: {level: loud}"), nil)
	for _, want := range []string{"node.name", "node.data", "disks", "cluster.secret", "credentials", "log.level", "advertise.host"} {
		if err == nil || !strings.Contains(err.Error(), want+":") {
			t.Errorf("%s is not named in: %v", want, err)
		}
	}
}

func TestDevelopmentKeysOnlyOnLoopback(t *testing.T) {
	const node = `
node: {name: n1, data: /s}
disks: [/d]
cluster: {secret: 0123456789abcdef}
listen: {client: '%s:7070', peer: '127.0.0.1:7170', bus: '[::1]:7270', route: 'localhost:7370'}
credentials: [%s]
`
	for _, tt := range []struct {
		host, key string
		ok        bool
	}{
		{"127.0.0.1", "shoaldev:shoaldev-secret", true},
		{"127.8.9.1", "shoaldev:shoaldev-secret", true},
		{"10.0.0.1", "shoaldev:shoaldev-secret", false},
		{"n1.example.net", "shoaldev:another-secret", false},
		{"10.0.0.1", "another:shoaldev-secret", false},
		{"10.0.0.1", "another:another-secret", true},
	} {
		_, err := Parse(fmt.Appendf(nil, node, tt.host, "'"+tt.key+"'"), nil)
		if (err == nil) != tt.ok || !tt.ok && !strings.Contains(err.Error(), "development key") {
			t.Errorf("%s on %s: got %v, want allowed: %v", tt.key, tt.host, err, tt.ok)
		}
	}
}

func TestSecretFile(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("fedcba9876543210\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "node.yaml")
	text := strings.Replace(minimal, "{secret: 0123456789abcdef}", "{secret_file: "+secret+"}", 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file, nil)
	if err != nil || c.Cluster.Secret != "fedcba9876543210" {
		t.Errorf("got %q, %v", string(c.Cluster.Secret), err)
	}
	if _, err := Load(file, []string{"SHOAL_REGION="}); err == nil || !strings.Contains(err.Error(), file+": region") {
		t.Errorf("got %v, want the file's name and the key", err)
	}
	if _, err := Load(filepath.Join(dir, "none"), nil); err == nil {
		t.Error("a missing file was accepted")
	}
}

func TestSecretsDoNotShow(t *testing.T) {
	c, err := Parse([]byte(minimal+`
backends:
  s3: {access_key: one, secret_key: hidden-1, session_token: hidden-2, accounts: {a: {access_key: two, secret_key: hidden-3}}}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	if a := c.Backends.S3.Accounts["a"]; a.SecretKey != "hidden-3" || c.Backends.S3.SecretKey != "hidden-1" {
		t.Errorf("not read: %+v", c.Backends)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c)
	for _, s := range []string{fmt.Sprintf("%v %+v %#v", c, c, c), log.String()} {
		if strings.Contains(s, "0123456789abcdef") || strings.Contains(s, "admin-secret") || strings.Contains(s, "hidden-") {
			t.Errorf("a secret shows in %s", s)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]Size{
		"0": 0, "1": 1, "65536": 65536, "1B": 1, "64KiB": 64 << 10, "64 kib": 64 << 10, "1.5GiB": 3 << 29, "2Mi": 2 << 20,
		"10MB": 10_000_000, "1kB": 1000, "1TB": 1e12, "1PiB": 1 << 50, " 7 ": 7,
	} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("ParseSize(%q): got %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "MiB", "-1", "1e3", "0x10", "64K", "64M", "1XiB", "9999999PiB", "99999999999999999999", "1..2", "inf", "1_000", "3é"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("ParseSize(%q): got %d, want an error", s, got)
		}
	}
	for s, want := range map[Size]string{0: "0", 1000: "1000", 1024: "1KiB", 128 << 10: "128KiB", 3 << 29: "1536MiB"} {
		if got := s.String(); got != want {
			t.Errorf("Size(%d): got %s, want %s", int64(s), got, want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"3": 3 * time.Second, "3s": 3 * time.Second, "0": 0, "0.5": time.Second / 2, "1m30s": 90 * time.Second, "250ms": time.Second / 4,
	} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("ParseDuration(%q): got %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "-3", "-3s", "3 apples", "s", "inf"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("ParseDuration(%q): got %v, want an error", s, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Example(), "SHOAL_NODE_NAME=x")
	f.Add(minimal, "SHOAL_DISKS=/a,/b")
	f.Add("node: {name: [}", "SHOAL_LIMITS_CACHE=64MiB")
	f.Add("? {a: b}\n: c\n1: 2\n~: x", "SHOAL_BUS_URL=nats://x:1")
	f.Fuzz(func(t *testing.T, yaml, env string) {
		if strings.Contains(yaml, "secret_file") || strings.Contains(env, "SECRET_FILE") {
			return // it would read files
		}
		c, err := Parse([]byte(yaml), []string{env})
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		// What is accepted holds what the server relies on.
		if err := c.Validate(); err != nil {
			t.Errorf("accepted, then refused: %v", err)
		}
		if len(c.Disks) == 0 || len(c.Credentials) == 0 || c.Node.Name == "" || len(c.Cluster.Secret) < minSecret {
			t.Errorf("accepted without what is needed: %+v", c)
		}
	})
}
