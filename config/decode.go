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
// key, and so is a section whose keys users choose.
func Keys() []string {
	var out []string
	var walk func(t reflect.Type, path string)
	walk = func(t reflect.Type, path string) {
		for f := range t.Fields() {
			p := join(path, f.Tag.Get("key")) // an embedded struct has none
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
	switch {
	case path == "":
		return key
	case key == "":
		return path
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
	fields := make(map[string]reflect.Value)
	var names []string
	var collect func(v reflect.Value)
	collect = func(v reflect.Value) {
		for f, field := range v.Fields() {
			if f.Anonymous {
				collect(field)
				continue
			}
			key := f.Tag.Get("key")
			fields[key] = field
			names = append(names, key)
		}
	}
	collect(dst)
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
	case reflect.Map:
		d.named(value, dst, path)
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

// named reads a section whose keys users choose. Viper has made them lower case.
func (d *decoder) named(value any, dst reflect.Value, path string) {
	elem := dst.Type().Elem()
	m, ok := value.(map[string]any)
	if text, isText := value.(string); isText && elem.Kind() == reflect.String {
		m, ok = make(map[string]any), true
		for part := range strings.SplitSeq(text, ",") {
			name, v, pair := strings.Cut(strings.TrimSpace(part), ":")
			if _, twice := m[name]; twice || !pair && name != "" {
				d.fail(path, "want NAME:VALUE,NAME:VALUE with each name once, got %s", describe(value))
				return
			}
			if pair {
				m[name] = v
			}
		}
	}
	if !ok {
		// The text is not repeated: it may be somebody's try to put secrets here.
		d.fail(path, "want a section with names of your own")
		return
	}
	out := reflect.MakeMap(dst.Type())
	for name, v := range m {
		e := reflect.New(elem).Elem()
		if v == nil && elem.Kind() != reflect.Struct {
			d.fail(join(path, name), "has no value")
			continue
		}
		d.value(v, e, join(path, name))
		out.SetMapIndex(reflect.ValueOf(name), e)
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
