package devcluster

import (
	"slices"
	"strings"

	"github.com/shoalstore/shoal/config"
)

// nodeEnv is the environment of a node's process: what its configuration is to
// be overridden by must be the same for all nodes, and what `shoal dev env` sets
// for clients must not be taken for the keys of a cloud.
func nodeEnv(env []string) []string {
	dev := slices.Contains(env, "AWS_ACCESS_KEY_ID="+config.DevAccessKey)
	var out []string
	for _, e := range env {
		name := variable(e)
		switch {
		case overrides(name):
		case strings.HasPrefix(name, "SHOAL_"), strings.HasPrefix(name, "NATS_"):
			continue
		case dev && (isKey(name) || name == "AWS_ENDPOINT_URL" || name == "AWS_REGION"):
			continue
		}
		out = append(out, e)
	}
	return out
}

func variable(e string) string {
	name, _, _ := strings.Cut(e, "=")
	return name
}

func hasPrefix(name string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// overrides says whether a variable overrides what the nodes' files say.
func overrides(name string) bool {
	return hasPrefix(name, "SHOAL_LOG_", "SHOAL_LIMITS_", "SHOAL_DEFAULTS_", "SHOAL_BACKENDS_")
}

// isKey says whether a variable is of the AWS key, whose parts go together.
func isKey(name string) bool {
	return name == "AWS_ACCESS_KEY_ID" || name == "AWS_SECRET_ACCESS_KEY" || name == "AWS_SESSION_TOKEN"
}

// remembered are the variables of a node's environment that it is to have again
// whoever starts it later: overrides of its configuration, and the clouds' credentials,
// which in a shell with the variables of `shoal dev env` are Shoal's own.
func remembered(env []string) []string {
	var out []string
	for _, e := range env {
		if name := variable(e); overrides(name) || hasPrefix(name, "AWS_", "GOOGLE_", "GCLOUD_", "CLOUDSDK_") || name == "STORAGE_EMULATOR_HOST" {
			out = append(out, e)
		}
	}
	return out
}

// withRemembered adds to an environment what was remembered and is not set there.
func withRemembered(env, earlier []string) []string {
	set := map[string]bool{}
	key := false
	for _, e := range env {
		set[variable(e)] = true
		key = key || isKey(variable(e))
	}
	out := slices.Clone(env)
	for _, e := range earlier {
		if name := variable(e); !set[name] && (!key || !isKey(name)) {
			out = append(out, e)
		}
	}
	return out
}
