package meter

import (
	"bytes"
	"fmt"
	"math"
	"strings"
)

// Limits bound what is parsed. A zero field takes its default.
type Limits struct {
	Size       int    // bytes of the module, 64 MiB
	Types      uint32 // 100,000
	Functions  uint32 // imported and defined, 100,000
	Imports    uint32 // 1,000
	Exports    uint32 // 100,000
	Globals    uint32 // 100,000
	Tables     uint32 // 16
	Segments   uint32 // of elements or data, each; 100,000
	Body       int    // bytes of a function's code, 7,654,321
	Locals     uint32 // of a function, its parameters included; 50,000
	Nesting    int    // blocks within each other, 50,000
	Params     uint32 // of a function, and as many results; 1,000
	Name       int    // bytes of the name of an import or export, 10,000
	TableSize  uint32 // elements that all tables may have at first, and each at most; 1,000,000
	NameSource int    // bytes of the section of names that are kept, 4 MiB
}

func or[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Size:       or(l.Size, 64<<20),
		Types:      or(l.Types, 100_000),
		Functions:  or(l.Functions, 100_000),
		Imports:    or(l.Imports, 1000),
		Exports:    or(l.Exports, 100_000),
		Globals:    or(l.Globals, 100_000),
		Tables:     or(l.Tables, 16),
		Segments:   or(l.Segments, 100_000),
		Body:       or(l.Body, 7_654_321),
		Locals:     or(l.Locals, 50_000),
		Nesting:    or(l.Nesting, 50_000),
		Params:     or(l.Params, 1000),
		Name:       or(l.Name, 10_000),
		TableSize:  or(l.TableSize, 1_000_000),
		NameSource: or(l.NameSource, 4<<20),
	}
}

// Kind is what an import or export is.
type Kind byte

// The kinds, as numbered in the binary format.
const (
	Func Kind = iota
	Table
	Memory
	Global
)

func (k Kind) String() string {
	if int(k) < 4 {
		return [...]string{"func", "table", "memory", "global"}[k]
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// Extern is something that a module imports (then Module is set) or exports.
type Extern struct {
	Module string
	Name   string
	Kind   Kind
	// Signature is that of a function, as in "(i32, i32) -> i32".
	Signature string
}

// Range is the size that a memory (in pages of 64 KiB) or a table (in elements)
// has at first and may have at most.
type Range struct {
	Min, Max uint32
	// Bounded is false if the module gives no maximum.
	Bounded bool
}

// Module is a parsed module. It refers to the bytes that it was parsed from.
type Module struct {
	Imports   []Extern
	Exports   []Extern
	Memories  []Range // defined ones, at most one
	Tables    []Range // defined ones
	Functions int     // defined ones
	// Start says that the module has a function to be run when instantiated.
	Start bool

	limits   Limits
	sections [13]*reader // by id; 0, the custom ones, is not used
	names    *reader     // the name section, after its name
	types    []signature

	importedFuncs, funcs     uint32 // imported; imported and defined
	importedGlobals, globals uint32
	tables                   uint32
	memories                 uint32
	segments                 uint32 // of elements
	dataCount                uint32
	hasDataCount             bool
	funcTypes                []uint32  // of the defined functions
	bodies                   []*reader // code of the defined functions
}

type signature struct {
	params, results []byte
}

func (s signature) String() string {
	list := func(types []byte) string {
		names := make([]string, len(types))
		for i, t := range types {
			names[i] = valueTypes[t]
		}
		return strings.Join(names, ", ")
	}
	if len(s.results) == 1 {
		return "(" + list(s.params) + ") -> " + list(s.results)
	}
	return "(" + list(s.params) + ") -> (" + list(s.results) + ")"
}

//nolint:gochecknoglobals // a table of the binary format, never written
var valueTypes = [256]string{0x7f: "i32", 0x7e: "i64", 0x7d: "f32", 0x7c: "f64", 0x7b: "v128", 0x70: "funcref", 0x6f: "externref"}

// The ids of the sections.
const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
	secTag
)

//nolint:gochecknoglobals // a table of the binary format, never written
var sectionNames = [...]string{"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count", "tag"}

// order is the place of a section: data count comes before code.
func order(id byte) int {
	switch id {
	case secDataCount:
		return 2*secElement + 1
	default:
		return 2 * int(id)
	}
}

// Parse reads a core module and checks what [Module.Rewrite] relies on. The
// module keeps wasm, which must not change. Errors are [*Error].
func Parse(wasm []byte, limits Limits) (*Module, error) {
	m := &Module{limits: limits.withDefaults()}
	r := &reader{b: wasm}
	m.parse(r)
	if r.err != nil {
		return nil, r.err
	}
	return m, nil
}

func (m *Module) parse(r *reader) {
	if len(r.b) > m.limits.Size {
		r.limit("bytes in the module", uint64(len(r.b)), uint64(m.limits.Size))
		return
	}
	header(r)
	last := 0
	for r.err == nil && !r.done() {
		id := r.byte()
		s := r.sized()
		switch {
		case r.err != nil:
			return
		case id == secCustom:
			m.custom(r, s)
			continue
		case id == secTag:
			r.invalid("the module declares exception tags: exceptions are off")
			return
		case id > secTag:
			r.invalid("unknown section %d", id)
			return
		case order(id) <= last:
			r.invalid("section %q out of order, or twice", sectionNames[id])
			return
		}
		last = order(id)
		m.sections[id] = s
		m.section(id, s)
		r.nested(s, "section "+sectionNames[id])
		s.off = 0
	}
	if r.err != nil {
		return
	}
	if len(m.bodies) != len(m.funcTypes) {
		r.invalid("%d functions are declared, %d have code", len(m.funcTypes), len(m.bodies))
	}
	if m.hasDataCount && m.sections[secData] == nil && m.dataCount != 0 {
		r.invalid("%d data segments are announced, there are none", m.dataCount)
	}
}

func header(r *reader) {
	head := r.b[:min(8, len(r.b))]
	switch {
	case len(head) < 8 || !bytes.Equal(head[:4], []byte("\x00asm")):
		r.invalid("not a WebAssembly module: it does not begin with the magic number")
	case bytes.Equal(head[4:], []byte{1, 0, 0, 0}):
		r.off = 8
	case head[6] == 1 && head[7] == 0:
		r.invalid("a WebAssembly component; transforms are core modules: build for WASI preview 1 (wasm32-wasip1), without componentizing it")
	default:
		r.invalid("unknown WebAssembly version %x", head[4:])
	}
}

// custom keeps the first name section, if it is not too large; all else is
// dropped. Names say nothing about validity, so their errors are not errors.
func (m *Module) custom(r, s *reader) {
	name := s.name("the name of a custom section", math.MaxInt32)
	if s.err != nil {
		r.err = s.err
		return
	}
	if name == "name" && m.names == nil && len(s.b) <= m.limits.NameSource {
		m.names = &reader{b: s.b[s.off:], base: s.base + s.off}
	}
}

func (m *Module) section(id byte, s *reader) {
	switch id {
	case secType:
		m.parseTypes(s)
	case secImport:
		m.parseImports(s)
	case secFunction:
		m.parseFunctions(s)
	case secTable:
		for n := s.count("tables", m.limits.Tables); n > 0 && s.err == nil; n-- {
			m.Tables = append(m.Tables, m.parseTable(s))
			m.tables++
		}
		m.checkTables(s)
	case secMemory:
		for n := s.count("memories", 1); n > 0 && s.err == nil; n-- {
			m.Memories = append(m.Memories, parseRange(s, "memory"))
			m.memories++
		}
		if m.memories > 1 {
			s.invalid("several memories")
		}
	case secGlobal:
		m.globals += uint32(s.count("globals", m.limits.Globals))
		for n := m.globals - m.importedGlobals; n > 0 && s.err == nil; n-- {
			m.globalType(s)
			m.constExpr(s, nil)
		}
	case secExport:
		m.parseExports(s)
	case secStart:
		m.funcIndex(s)
		m.Start = s.err == nil
	case secElement:
		m.segments = uint32(s.count("element segments", m.limits.Segments))
		for n := m.segments; n > 0 && s.err == nil; n-- {
			m.element(s, nil)
		}
	case secDataCount:
		m.dataCount, m.hasDataCount = s.u32(), true
		if m.dataCount > m.limits.Segments {
			s.limit("data segments", uint64(m.dataCount), uint64(m.limits.Segments))
		}
	case secCode:
		m.parseCode(s)
	case secData:
		m.parseData(s)
	}
}

func (m *Module) parseTypes(s *reader) {
	for n := s.count("types", m.limits.Types); n > 0 && s.err == nil; n-- {
		if form := s.byte(); s.err == nil && form != 0x60 {
			s.invalid("a type of form %#x is not a function type", form)
		}
		m.types = append(m.types, signature{m.valueTypes(s), m.valueTypes(s)})
	}
}

func (m *Module) valueTypes(s *reader) []byte {
	types := s.bytes(s.count("parameters or results", m.limits.Params))
	for _, t := range types {
		checkValueType(s, t)
	}
	return types
}

func checkValueType(s *reader, t byte) {
	if s.err == nil && valueTypes[t] == "" {
		s.invalid("unknown value type %#x", t)
	}
}

func (m *Module) parseImports(s *reader) {
	for n := s.count("imports", m.limits.Imports); n > 0 && s.err == nil; n-- {
		e := Extern{
			Module: s.name("the module of an import", m.limits.Name),
			Name:   s.name("the name of an import", m.limits.Name),
			Kind:   Kind(s.byte()),
		}
		switch {
		case s.err != nil:
		case e.Kind == Func:
			if t := m.typeIndex(s); s.err == nil {
				e.Signature = m.types[t].String()
			}
			m.importedFuncs++
		case e.Kind == Table:
			m.parseTable(s)
			m.tables++
		case e.Kind == Memory:
			parseRange(s, "memory")
			m.memories++
		case e.Kind == Global:
			m.globalType(s)
			m.importedGlobals++
		default:
			s.invalid("an import of unknown kind %d", byte(e.Kind))
		}
		m.Imports = append(m.Imports, e)
	}
	m.funcs, m.globals = m.importedFuncs, m.importedGlobals
}

func (m *Module) parseFunctions(s *reader) {
	n := s.count("functions", m.limits.Functions)
	m.funcTypes = make([]uint32, 0, n)
	for ; n > 0 && s.err == nil; n-- {
		m.funcTypes = append(m.funcTypes, m.typeIndex(s))
	}
	m.Functions = len(m.funcTypes)
	m.funcs += uint32(len(m.funcTypes))
	if s.err == nil && m.funcs > m.limits.Functions {
		s.limit("functions", uint64(m.funcs), uint64(m.limits.Functions))
	}
}

func (m *Module) typeIndex(s *reader) uint32 {
	t := s.u32()
	if s.err == nil && t >= uint32(len(m.types)) {
		s.invalid("type %d of %d", t, len(m.types))
	}
	return t
}

func (m *Module) funcIndex(s *reader) uint32 {
	f := s.u32()
	if s.err == nil && f >= m.funcs {
		s.invalid("function %d of %d", f, m.funcs)
	}
	return f
}

func (m *Module) globalIndex(s *reader) {
	if g := s.u32(); s.err == nil && g >= m.globals {
		s.invalid("global %d of %d", g, m.globals)
	}
}

func (m *Module) tableIndex(s *reader) {
	if t := s.u32(); s.err == nil && t >= m.tables {
		s.invalid("table %d of %d", t, m.tables)
	}
}

func (m *Module) globalType(s *reader) {
	checkValueType(s, s.byte())
	if mut := s.byte(); s.err == nil && mut > 1 {
		s.invalid("mutability %d of a global", mut)
	}
}

func (m *Module) parseTable(s *reader) Range {
	if t := s.byte(); s.err == nil && t != 0x70 && t != 0x6f {
		s.invalid("a table of elements of type %#x", t)
	}
	return parseRange(s, "table")
}

func parseRange(s *reader, what string) Range {
	switch flags := s.byte(); {
	case s.err != nil:
		return Range{}
	case flags&2 != 0:
		s.invalid("a shared %s: threads are off", what)
	case flags&4 != 0:
		s.invalid("a 64-bit %s", what)
	case flags > 1:
		s.invalid("unknown limits %#x of a %s", flags, what)
	case flags == 1:
		return Range{Min: s.u32(), Max: s.u32(), Bounded: true}
	default:
		return Range{Min: s.u32()}
	}
	return Range{}
}

func (m *Module) checkTables(s *reader) {
	total := uint64(0)
	for _, t := range m.Tables {
		total += uint64(t.Min)
	}
	if s.err == nil && total > uint64(m.limits.TableSize) {
		s.limit("elements in tables", total, uint64(m.limits.TableSize))
	}
}

func (m *Module) parseExports(s *reader) {
	for n := s.count("exports", m.limits.Exports); n > 0 && s.err == nil; n-- {
		e := Extern{Name: s.name("the name of an export", m.limits.Name), Kind: Kind(s.byte())}
		switch {
		case s.err != nil:
		case e.Kind == Func:
			if f := m.funcIndex(s); s.err == nil {
				e.Signature = m.funcSignature(f)
			}
		case e.Kind == Table:
			m.tableIndex(s)
		case e.Kind == Memory:
			if i := s.u32(); s.err == nil && i >= m.memories {
				s.invalid("memory %d of %d", i, m.memories)
			}
		case e.Kind == Global:
			m.globalIndex(s)
		default:
			s.invalid("an export of unknown kind %d", byte(e.Kind))
		}
		m.Exports = append(m.Exports, e)
	}
}

func (m *Module) funcSignature(f uint32) string {
	if f < m.importedFuncs {
		for _, e := range m.Imports {
			if e.Kind != Func {
				continue
			}
			if f == 0 {
				return e.Signature
			}
			f--
		}
	}
	return m.types[m.funcTypes[f-m.importedFuncs]].String()
}

// constExpr passes a constant expression, with found called for each function
// index in it.
func (m *Module) constExpr(s *reader, found func(at, end int, f uint32)) {
	for s.err == nil {
		switch op := s.byte(); op {
		case opEnd:
			return
		case opI32Const:
			s.signed(32)
		case opI64Const:
			s.signed(64)
		case opF32Const:
			s.bytes(4)
		case opF64Const:
			s.bytes(8)
		case opGlobalGet:
			m.globalIndex(s)
		case opRefNull:
			s.byte()
		case opRefFunc:
			at := s.off
			f := m.funcIndex(s)
			if s.err == nil && found != nil {
				found(at, s.off, f)
			}
		case opVector:
			if sub := s.u32(); s.err == nil && sub != 12 {
				s.invalid("vector instruction %d in a constant expression", sub)
			}
			s.bytes(16)
		default:
			if s.err == nil {
				s.off--
				s.invalid("instruction %#x in a constant expression", op)
			}
		}
	}
}

// element passes a segment of elements, with found called for each function
// index in it.
func (m *Module) element(s *reader, found func(at, end int, f uint32)) {
	flags := s.u32()
	if s.err == nil && flags > 7 {
		s.invalid("unknown element segment %d", flags)
	}
	passive, explicit, exprs := flags&1 != 0, flags&2 != 0, flags&4 != 0
	if !passive {
		if explicit {
			m.tableIndex(s)
		} else if s.err == nil && m.tables == 0 {
			s.invalid("an element segment without a table")
		}
		m.constExpr(s, found)
	}
	if passive || explicit {
		s.byte() // the kind or type of the elements
	}
	for n := s.count("elements", m.limits.TableSize); n > 0 && s.err == nil; n-- {
		if exprs {
			m.constExpr(s, found)
			continue
		}
		at := s.off
		if f := m.funcIndex(s); s.err == nil && found != nil {
			found(at, s.off, f)
		}
	}
}

func (m *Module) parseData(s *reader) {
	n := s.count("data segments", m.limits.Segments)
	if s.err == nil && m.hasDataCount && uint32(n) != m.dataCount {
		s.invalid("%d data segments are announced, there are %d", m.dataCount, n)
	}
	for ; n > 0 && s.err == nil; n-- {
		switch mode := s.u32(); {
		case s.err != nil:
			return
		case mode == 2:
			if i := s.u32(); s.err == nil && i != 0 {
				s.invalid("data for memory %d", i)
			}
			m.constExpr(s, nil)
		case mode == 0:
			m.constExpr(s, nil)
		case mode != 1:
			s.invalid("unknown data segment %d", mode)
		}
		s.bytes(int(s.u32()))
	}
}

func (m *Module) parseCode(s *reader) {
	n := s.count("function bodies", m.limits.Functions)
	if s.err == nil && n != len(m.funcTypes) {
		s.invalid("%d functions are declared, %d have code", len(m.funcTypes), n)
		return
	}
	m.bodies = make([]*reader, 0, n)
	w := walker{m: m}
	for i := range n {
		b := s.sized()
		if s.err == nil && len(b.b) > m.limits.Body {
			s.limit(fmt.Sprintf("bytes in function %d", m.importedFuncs+uint32(i)), uint64(len(b.b)), uint64(m.limits.Body))
		}
		if s.err != nil {
			return
		}
		w.walk(b, m.types[m.funcTypes[i]], nil)
		s.nested(b, "a function")
		b.off = 0
		m.bodies = append(m.bodies, b)
	}
}
