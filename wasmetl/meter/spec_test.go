package meter_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/shoalstore/shoal/wasmetl/internal/wasmtest"
	"github.com/shoalstore/shoal/wasmetl/meter"
)

// specDir is where the module of wazero keeps the WebAssembly specification's
// tests, compiled.
func specDir(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatalf("where wazero is: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "internal/integration_test/spectest/v2/testdata")
}

type specCommand struct {
	Type     string     `json:"type"`
	Line     int        `json:"line"`
	Name     string     `json:"name"`
	Filename string     `json:"filename"`
	Module   string     `json:"module_type"`
	As       string     `json:"as"`
	Action   specAction `json:"action"`
}

type specAction struct {
	Type   string `json:"type"`
	Field  string `json:"field"`
	Module string `json:"module"`
	Args   []struct {
		Type  string `json:"type"`
		Value any    `json:"value"`
	} `json:"args"`
}

// specSide is a runtime that runs a script, with its modules as they are or metered.
type specSide struct {
	r       wazero.Runtime
	metered bool
	polls   int
	last    api.Module
	named   map[string]api.Module
}

func newSpecSide(t *testing.T, metered bool) *specSide {
	ctx := t.Context()
	// Validity and results are the question: the interpreter compiles fastest.
	s := &specSide{r: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2)), metered: metered, named: map[string]api.Module{}}
	t.Cleanup(func() { _ = s.r.Close(ctx) })
	poll(t, s.r, &s.polls)
	b := wasmtest.Module{
		Memory: &wasmtest.Range{Min: 1, Max: 2}, Table: &wasmtest.Range{Min: 10, Max: 20},
		Constants: []wasmtest.Global{
			{Type: wasmtest.I32, Init: wasmtest.I32Const(666)},
			{Type: wasmtest.I64, Init: wasmtest.I64Const(666)},
			{Type: wasmtest.F32, Init: []byte{0x43, 0x66, 0xa6, 0x26, 0x44}},
			{Type: wasmtest.F64, Init: []byte{0x44, 0xcd, 0xcc, 0xcc, 0xcc, 0xcc, 0xd4, 0x84, 0x40}},
		},
	}
	for name, params := range map[string][]byte{
		"print": nil, "print_i32": {wasmtest.I32}, "print_i64": {wasmtest.I64}, "print_f32": {wasmtest.F32}, "print_f64": {wasmtest.F64},
		"print_i32_f32": {wasmtest.I32, wasmtest.F32}, "print_f64_f64": {wasmtest.F64, wasmtest.F64},
	} {
		b.Export(name, b.Func(params, nil, nil, nil))
	}
	for i, name := range []string{"global_i32", "global_i64", "global_f32", "global_f64"} {
		b.ExportAs(name, wasmtest.KindGlobal, uint32(i))
	}
	b.ExportAs("table", wasmtest.KindTable, 0)
	b.ExportAs("memory", wasmtest.KindMemory, 0)
	if _, err := s.r.InstantiateWithConfig(ctx, b.Bytes(), wazero.NewModuleConfig().WithName("spectest")); err != nil {
		t.Fatalf("the host module of the tests: %v", err)
	}
	return s
}

// poll gives a runtime the poll, which counts.
func poll(t *testing.T, r wazero.Runtime, n *int) {
	t.Helper()
	_, err := r.NewHostModuleBuilder(meter.PollModule).NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(context.Context, []uint64) { *n++ }), nil, nil).
		Export(meter.PollName).Instantiate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
}

var specLimits = meter.Limits{TableSize: 1 << 30}

func (s *specSide) instantiate(ctx context.Context, wasm []byte, name string) error {
	if s.metered {
		m, err := meter.Parse(wasm, specLimits)
		if err != nil {
			return err
		}
		wasm = m.Rewrite(meter.Options{Interval: 3, MaxTable: 1<<32 - 1})
	}
	compiled, err := s.r.CompileModule(ctx, wasm)
	if err != nil {
		return err
	}
	mod, err := s.r.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName(name).WithStartFunctions())
	if err != nil {
		return err
	}
	s.last = mod
	return nil
}

func (s *specSide) do(ctx context.Context, a specAction) ([]uint64, error) {
	mod := s.last
	if a.Module != "" {
		mod = s.named[a.Module]
	}
	if mod == nil {
		return nil, errors.New("no module")
	}
	if a.Type == "get" {
		g := mod.ExportedGlobal(a.Field)
		if g == nil {
			return nil, errors.New("no global")
		}
		return []uint64{g.Get()}, nil
	}
	f := mod.ExportedFunction(a.Field)
	if f == nil {
		return nil, errors.New("no function")
	}
	var args []uint64
	for _, arg := range a.Args {
		args = append(args, specValue(arg.Type, arg.Value)...)
	}
	return f.Call(ctx, args...)
}

func specValue(typ string, value any) []uint64 {
	if typ != "v128" {
		text, _ := value.(string)
		if text == "null" {
			return []uint64{0}
		}
		v, _ := strconv.ParseUint(text, 10, 64)
		if typ == "externref" {
			v++
		}
		return []uint64{v}
	}
	lanes, _ := value.([]any)
	var v [2]uint64
	width := 128 / len(lanes)
	for i, l := range lanes {
		n, err := strconv.ParseUint(fmt.Sprint(l), 10, 64)
		if err != nil {
			signed, _ := strconv.ParseInt(fmt.Sprint(l), 10, 64)
			n = uint64(signed)
		}
		if width < 64 {
			n &= 1<<width - 1
		}
		v[i*width/64] |= n << (i * width % 64)
	}
	return v[:]
}

// The specification's tests run the same, metered with a step of three and not.
func TestSpecification(t *testing.T) {
	scripts, err := filepath.Glob(filepath.Join(specDir(t), "*.json"))
	if err != nil || len(scripts) < 50 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	var modules, actions, refusals, polls int
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".json"), func(t *testing.T) {
			m, a, r, p := runScript(t, script)
			modules, actions, refusals, polls = modules+m, actions+a, refusals+r, polls+p
		})
	}
	t.Logf("%d modules, %d actions, %d refusals; %d polls", modules, actions, refusals, polls)
	if modules < 1500 || actions < 40_000 || refusals < 2000 || polls < 100_000 {
		t.Error("too little was tested")
	}
}

func runScript(t *testing.T, path string) (modules, actions, refusals, polls int) {
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var script struct {
		Commands []specCommand `json:"commands"`
	}
	if err := json.Unmarshal(raw, &script); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	plain, metered := newSpecSide(t, false), newSpecSide(t, true)
	names := registered(script.Commands)
	for i, c := range script.Commands {
		var wasm []byte
		if strings.HasSuffix(c.Filename, ".wasm") {
			if wasm, err = os.ReadFile(filepath.Join(filepath.Dir(path), c.Filename)); err != nil {
				t.Fatal(err)
			}
		}
		switch c.Type {
		case "module", "assert_unlinkable", "assert_uninstantiable":
			name := names[i]
			e1, e2 := plain.instantiate(ctx, wasm, name), metered.instantiate(ctx, wasm, name)
			if (e1 == nil) != (e2 == nil) {
				t.Fatalf("line %d: %s: %v, metered %v", c.Line, c.Type, e1, e2)
			}
			if c.Type == "module" && c.Name != "" {
				plain.named[c.Name], metered.named[c.Name] = plain.last, metered.last
			}
			modules++
		case "assert_return", "assert_trap", "action", "assert_exhaustion":
			if c.Type == "assert_exhaustion" {
				continue // frames of metered functions are larger
			}
			v1, e1 := plain.do(ctx, c.Action)
			v2, e2 := metered.do(ctx, c.Action)
			if firstLine(e1) != firstLine(e2) {
				t.Errorf("line %d: %s %s: %v, metered %v", c.Line, c.Type, c.Action.Field, e1, e2)
			}
			if !slices.Equal(v1, v2) && !isReference(c) {
				t.Errorf("line %d: %s %s: %x, metered %x", c.Line, c.Type, c.Action.Field, v1, v2)
			}
			actions++
		case "assert_invalid", "assert_malformed":
			if wasm == nil {
				continue // text
			}
			if err := metered.instantiate(ctx, wasm, "invalid"); err == nil && plain.instantiate(ctx, wasm, "invalid") != nil {
				t.Errorf("line %d: an invalid module became valid", c.Line)
			}
			refusals++
		}
	}
	return modules, actions, refusals, metered.polls
}

// registered gives each module the name by which later ones import it.
func registered(commands []specCommand) map[int]string {
	names, named, last := map[int]string{}, map[string]int{}, -1
	for i, c := range commands {
		switch c.Type {
		case "module":
			last = i
			if c.Name != "" {
				named[c.Name] = i
			}
		case "register":
			at := last
			if c.Name != "" {
				at = named[c.Name]
			}
			names[at] = c.As
		}
	}
	return names
}

func firstLine(err error) string {
	if err == nil {
		return ""
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// isReference says that the result may be a pointer.
func isReference(c specCommand) bool {
	return strings.Contains(c.Action.Field, "ref") || strings.Contains(c.Action.Field, "get")
}
