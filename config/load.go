package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/viper"
)

// envPrefix starts the names of all variables that override keys.
const envPrefix = "SHOAL_"

// Load reads the file, applies the environment (in the form of os.Environ) and
// validates the result. The path "" means no file. The error names every key
// that is wrong.
func Load(path string, env []string) (Config, error) {
	var data []byte
	if path != "" {
		var err error
		if data, err = os.ReadFile(path); err != nil {
			return Config{}, fmt.Errorf("read the configuration: %w", err)
		}
	}
	c, err := Parse(data, env)
	if err != nil && path != "" {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, err
}

// Parse is [Load] for a file's content.
func Parse(data []byte, env []string) (Config, error) {
	// No key holds a NUL, so no key is taken apart: "a.b" in the file is a key
	// of that name, and unknown.
	v := viper.NewWithOptions(viper.KeyDelimiter("\x00"))
	v.SetConfigType("yaml")
	if err := v.ReadConfig(bytes.NewReader(data)); err != nil {
		return Config{}, fmt.Errorf("not a YAML mapping: %w", err)
	}
	settings := v.AllSettings()
	for _, key := range v.AllKeys() { // AllSettings leaves out keys without a value
		if v.Get(key) == nil {
			if err := set(settings, strings.Split(key, "\x00"), nil); err != nil {
				return Config{}, err
			}
		}
	}
	c := Default()
	unread := errors.Join(overlay(settings, env), decode(settings, &c), c.readSecret())
	if err := withoutPaths(c.Validate(), unread); err != nil || unread != nil {
		return Config{}, errors.Join(unread, err)
	}
	return c, nil
}

// withoutPaths are the errors of what has another path than all in unread, whose
// values are not what somebody wrote.
func withoutPaths(err, unread error) error {
	var paths, keep []error
	paths = split(unread)
	for _, e := range split(err) {
		path, _, _ := strings.Cut(e.Error(), ": ")
		if !slices.ContainsFunc(paths, func(u error) bool {
			of, _, _ := strings.Cut(u.Error(), ": ")
			return strings.HasPrefix(path, of) || strings.HasPrefix(of, path)
		}) {
			keep = append(keep, e)
		}
	}
	return errors.Join(keep...)
}

// split takes joined errors apart.
func split(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, split(e)...)
	}
	return out
}

// overlay puts the values of SHOAL_ variables in place of what the file says.
// Variables that begin like a section but name no key of it are refused, but
// for those that Kubernetes sets for a service of such a name; other SHOAL_
// variables belong to the command line's client side.
func overlay(settings map[string]any, env []string) error {
	names := make(map[string]string)
	for _, key := range Keys() {
		names[envName(key)] = key
	}
	var errs []error
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		key, ok := names[name]
		if !ok {
			key, ok = accountKey(name)
		}
		if !ok {
			if section := envSection(name); section != "" && !setByKubernetes(name) {
				errs = append(errs, fmt.Errorf("%s: names no key of section %q; its keys: %s",
					name, section, strings.Join(keysOf(section), ", ")))
			}
			continue
		}
		if err := set(settings, strings.Split(key, "."), value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// accountKey reads the variable of a key of an account: of
// SHOAL_BACKENDS_S3_ACCOUNTS_TRAIN_EU_SECRET_KEY the account is train-eu.
func accountKey(env string) (key string, ok bool) {
	for section, account := range map[string]reflect.Type{
		"backends.s3.accounts": reflect.TypeFor[S3Account](),
		"backends.gs.accounts": reflect.TypeFor[GSAccount](),
	} {
		rest, ok := strings.CutPrefix(env, envName(section)+"_")
		if !ok {
			continue
		}
		for f := range account.Fields() {
			leaf := f.Tag.Get("key")
			name, ok := strings.CutSuffix(rest, "_"+strings.ToUpper(leaf))
			if ok && name != "" {
				return section + "." + strings.ToLower(strings.ReplaceAll(name, "_", "-")) + "." + leaf, true
			}
		}
	}
	return "", false
}

func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

func envSection(name string) string {
	for _, key := range Keys() {
		section, _, nested := strings.Cut(key, ".")
		if nested && strings.HasPrefix(name, envName(section)+"_") {
			return section
		}
	}
	return ""
}

func setByKubernetes(name string) bool {
	return strings.HasSuffix(name, "_PORT") || strings.Contains(name, "_PORT_") ||
		strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name, "_SERVICE_PORT")
}

func set(settings map[string]any, path []string, value any) error {
	for i, p := range path[:len(path)-1] {
		switch next := settings[p].(type) {
		case map[string]any:
			settings = next
		case nil:
			m := make(map[string]any)
			settings[p] = m
			settings = m
		default:
			return fmt.Errorf("%s: the file has a value there, want a section", strings.Join(path[:i+1], "."))
		}
	}
	settings[path[len(path)-1]] = value
	return nil
}

func keysOf(section string) []string {
	var out []string
	for _, key := range Keys() {
		if strings.HasPrefix(key, section+".") {
			out = append(out, key)
		}
	}
	return slices.Clip(out)
}

func (c *Config) readSecret() error {
	if c.Cluster.SecretFile == "" {
		return nil
	}
	if c.Cluster.Secret != "" {
		return errors.New("cluster.secret_file: cluster.secret is set too; keep one of them")
	}
	b, err := os.ReadFile(c.Cluster.SecretFile)
	if err != nil {
		return fmt.Errorf("cluster.secret_file: %w", err)
	}
	c.Cluster.Secret = Secret(strings.TrimRight(string(b), "\r\n"))
	return nil
}
