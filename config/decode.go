package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Keys are the paths of all keys, in the order of the structs. A list is one
// key.
func Keys() []string {
	var out []string
	var walk func(t reflect.Type, path string)
	walk = func(t reflect.Type, path string) {
		for f := range t.Fields() {
			p := join(path, f.Tag.Get("key"))
			if f.Type.Kind() == reflect.Struct {
				walk(f.Type, p)
			} else {
				out = append(out, p)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "")
	return out
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// decode fills the struct that dst points to from what YAML gave. Every wrong
// key is named in the error, by its path.
func decode(settings map[string]any, dst *Config) error {
	var d decoder
	d.structure(settings, reflect.ValueOf(dst).Elem(), "")
	slices.SortFunc(d.errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(d.errs...)
}

type decoder struct{ errs []error }

func (d *decoder) fail(path, format string, args ...any) {
	d.errs = append(d.errs, fmt.Errorf("%s: "+format, append([]any{path}, args...)...))
}

func (d *decoder) structure(m map[string]any, dst reflect.Value, path string) {
	t := dst.Type()
	fields := make(map[string]reflect.Value, t.NumField())
	names := make([]string, 0, t.NumField())
	for i := range t.NumField() {
		key := t.Field(i).Tag.Get("key")
		fields[key] = dst.Field(i)
		names = append(names, key)
	}
	for key, value := range m {
		f, ok := fields[key]
		if !ok {
			d.fail(join(path, key), "unknown key; allowed here: %s", strings.Join(names, ", "))
			continue
		}
		d.value(value, f, join(path, key))
	}
}

func (d *decoder) value(value any, dst reflect.Value, path string) {
	if value == nil {
		return
	}
	switch dst.Interface().(type) {
	case time.Duration:
		d.parsed(value, dst, path, func(s string) (int64, error) { v, err := ParseDuration(s); return int64(v), err })
		return
	case Size:
		d.parsed(value, dst, path, func(s string) (int64, error) { v, err := ParseSize(s); return int64(v), err })
		return
	}
	switch dst.Kind() {
	case reflect.Struct:
		m, ok := value.(map[string]any)
		if !ok {
			if s, isText := value.(string); isText && fromText(s, dst) {
				return
			}
			d.fail(path, "want a section with keys, got %s", describe(value))
			return
		}
		d.structure(m, dst, path)
	case reflect.Slice:
		d.list(value, dst, path)
	case reflect.String:
		s, ok := scalar(value)
		if !ok {
			d.fail(path, "want text, got %s", describe(value))
			return
		}
		dst.SetString(s)
	case reflect.Bool:
		s, _ := scalar(value)
		b, ok := map[string]bool{"true": true, "on": true, "yes": true, "false": false, "off": false, "no": false}[strings.ToLower(s)]
		if !ok {
			d.fail(path, "want true or false, got %s", describe(value))
			return
		}
		dst.SetBool(b)
	case reflect.Float64:
		s, _ := scalar(value)
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			d.fail(path, "want a number, got %s", describe(value))
			return
		}
		dst.SetFloat(f)
	default: // an int, the only kind left
		s, _ := scalar(value)
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			d.fail(path, "want a whole number, got %s", describe(value))
			return
		}
		dst.SetInt(n)
	}
}

func (d *decoder) parsed(value any, dst reflect.Value, path string, parse func(string) (int64, error)) {
	s, ok := scalar(value)
	if !ok {
		d.fail(path, "want one value, got %s", describe(value))
		return
	}
	n, err := parse(s)
	if err != nil {
		d.fail(path, "%w", err)
		return
	}
	dst.SetInt(n)
}

func (d *decoder) list(value any, dst reflect.Value, path string) {
	var items []any
	switch v := value.(type) {
	case []any:
		items = v
	case string:
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" {
				items = append(items, part)
			}
		}
	default:
		d.fail(path, "want a list, got %s", describe(value))
		return
	}
	out := reflect.MakeSlice(dst.Type(), len(items), len(items))
	for i, item := range items {
		if item == nil {
			d.fail(fmt.Sprintf("%s[%d]", path, i), "has no value")
			continue
		}
		d.value(item, out.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
	dst.Set(out)
}

// fromText reads the short forms of list entries: a disk's path, a key pair.
func fromText(s string, dst reflect.Value) bool {
	switch dst.Addr().Interface().(type) {
	case *Disk:
		dst.Set(reflect.ValueOf(Disk{Path: s}))
		return true
	case *Credential:
		key, secret, ok := strings.Cut(s, ":")
		if ok {
			dst.Set(reflect.ValueOf(Credential{AccessKey: key, SecretKey: Secret(secret)}))
		}
		return ok
	}
	return false
}

// scalar is the text of a single value. YAML has made numbers, booleans and
// dates of some.
func scalar(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case bool, int, int64, uint64:
		return fmt.Sprint(v), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	case fmt.Stringer:
		return v.String(), true
	}
	return "", false
}

func describe(value any) string {
	switch v := value.(type) {
	case map[string]any:
		return "a section"
	case []any:
		return "a list"
	case string:
		return strconv.Quote(v)
	default:
		return fmt.Sprint(v)
	}
}
