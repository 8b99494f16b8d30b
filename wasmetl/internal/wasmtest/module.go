// Package wasmtest assembles WebAssembly modules for tests: by hand, as in
//
//	m := wasmtest.Module{Memory: &wasmtest.Range{Min: 1}}
//	m.Export("run", m.Func(nil, nil, nil, wasmtest.Code(wasmtest.Loop, wasmtest.Void, wasmtest.Br(0), wasmtest.End)))
//	wasm := m.Bytes()
//
// or at random ([Generate]). Nothing is checked: modules may well be invalid.
package wasmtest

import "slices"

// Value types, and the type of a block without parameters and results.
const (
	I32       = 0x7f
	I64       = 0x7e
	F32       = 0x7d
	F64       = 0x7c
	FuncRef   = 0x70
	ExternRef = 0x6f
	Void      = 0x40
)

// Instructions without immediates, or whose immediates follow as bytes.
const (
	Unreachable = 0x00
	Nop         = 0x01
	Block       = 0x02
	Loop        = 0x03
	If          = 0x04
	Else        = 0x05
	End         = 0x0b
	Return      = 0x0f
	Drop        = 0x1a
	I32Eqz      = 0x45
	I32LtU      = 0x49
	I32Add      = 0x6a
	I32Sub      = 0x6b
	I32Mul      = 0x6c
	I32DivS     = 0x6d
	I64Add      = 0x7c
)

// Kinds of imports and exports.
const (
	KindFunc   = 0
	KindTable  = 1
	KindMemory = 2
	KindGlobal = 3
)

// Range is the size of a memory or table. Max 0 is none.
type Range struct{ Min, Max uint32 }

// Import of a function.
type Import struct {
	Module, Name string
	Type         uint32
}

type function struct {
	typ    uint32
	locals []byte
	code   []byte
}

// Global is a global with its initial value as an expression, without end.
type Global struct {
	Type byte
	Init []byte
}

type export struct {
	name  string
	kind  byte
	index uint32
}

// Module is what is to be assembled. Imports have to be there before functions.
type Module struct {
	Imports []Import
	Table   *Range
	Memory  *Range
	Globals []Global
	// Constants are immutable globals, before the others.
	Constants []Global
	Start     *uint32
	// Elements fill the table from 0.
	Elements []uint32
	// Data is put at 0.
	Data []byte
	// DataCount adds a section that counts the data segment, needed by memory.init.
	DataCount bool
	// Custom sections, by name.
	Custom map[string][]byte

	types   [][2][]byte
	funcs   []function
	exports []export
}

// Type returns the index of a function type.
func (m *Module) Type(params, results []byte) uint32 {
	for i, t := range m.types {
		if slices.Equal(t[0], params) && slices.Equal(t[1], results) {
			return uint32(i)
		}
	}
	m.types = append(m.types, [2][]byte{params, results})
	return uint32(len(m.types) - 1)
}

// Import adds an imported function and returns its index.
func (m *Module) Import(module, name string, params, results []byte) uint32 {
	m.Imports = append(m.Imports, Import{module, name, m.Type(params, results)})
	return uint32(len(m.Imports) - 1)
}

// Func adds a function, whose code is given without the last end, and returns
// its index.
func (m *Module) Func(params, results, locals, code []byte) uint32 {
	m.funcs = append(m.funcs, function{m.Type(params, results), locals, code})
	return uint32(len(m.Imports) + len(m.funcs) - 1)
}

// Export gives a function a name.
func (m *Module) Export(name string, f uint32) { m.ExportAs(name, KindFunc, f) }

// ExportAs gives a thing of any kind a name.
func (m *Module) ExportAs(name string, kind byte, index uint32) {
	m.exports = append(m.exports, export{name, kind, index})
}

// Bytes assembles the module.
func (m *Module) Bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, n int, body []byte) {
		if n > 0 {
			body = append(U32(uint32(n)), body...)
			out = append(append(append(out, id), U32(uint32(len(body)))...), body...)
		}
	}
	var types, imports, funcs, code, globals, exports []byte
	for _, t := range m.types {
		types = slices.Concat(types, []byte{0x60}, vector(t[0]), vector(t[1]))
	}
	for _, i := range m.Imports {
		imports = slices.Concat(imports, vector([]byte(i.Module)), vector([]byte(i.Name)), []byte{KindFunc}, U32(i.Type))
	}
	for _, f := range m.funcs {
		funcs = append(funcs, U32(f.typ)...)
		body := U32(uint32(len(f.locals)))
		for _, l := range f.locals {
			body = append(body, 1, l)
		}
		code = append(code, vector(slices.Concat(body, f.code, []byte{End}))...)
	}
	for _, g := range m.Constants {
		globals = slices.Concat(globals, []byte{g.Type, 0}, g.Init, []byte{End})
	}
	for _, g := range m.Globals {
		globals = slices.Concat(globals, []byte{g.Type, 1}, g.Init, []byte{End})
	}
	for _, e := range m.exports {
		exports = slices.Concat(exports, vector([]byte(e.name)), []byte{e.kind}, U32(e.index))
	}
	section(1, len(m.types), types)
	section(2, len(m.Imports), imports)
	section(3, len(m.funcs), funcs)
	if m.Table != nil {
		section(4, 1, append([]byte{FuncRef}, m.Table.bytes()...))
	}
	if m.Memory != nil {
		section(5, 1, m.Memory.bytes())
	}
	section(6, len(m.Constants)+len(m.Globals), globals)
	section(7, len(m.exports), exports)
	if m.Start != nil {
		start := U32(*m.Start)
		out = append(append(out, 8, byte(len(start))), start...)
	}
	if len(m.Elements) > 0 {
		elements := slices.Concat([]byte{0}, I32Const(0), []byte{End}, U32(uint32(len(m.Elements))))
		for _, e := range m.Elements {
			elements = append(elements, U32(e)...)
		}
		section(9, 1, elements)
	}
	if m.DataCount {
		out = append(out, 12, 1, 1)
	}
	section(10, len(m.funcs), code)
	if m.Data != nil {
		section(11, 1, slices.Concat([]byte{0}, I32Const(0), []byte{End}, vector(m.Data)))
	}
	for name, content := range m.Custom {
		body := append(vector([]byte(name)), content...)
		out = append(append(append(out, 0), U32(uint32(len(body)))...), body...)
	}
	return out
}

func (r *Range) bytes() []byte {
	if r.Max == 0 {
		return append([]byte{0}, U32(r.Min)...)
	}
	return slices.Concat([]byte{1}, U32(r.Min), U32(r.Max))
}

func vector(b []byte) []byte { return append(U32(uint32(len(b))), b...) }

// U32 is an unsigned LEB128.
func U32(v uint32) []byte {
	var b []byte
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// S64 is a signed LEB128.
func S64(v int64) []byte {
	var b []byte
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// Code joins instructions: numbers are bytes, slices are taken as they are.
func Code(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = append(b, byte(p))
		case byte:
			b = append(b, p)
		case []byte:
			b = append(b, p...)
		default:
			panic("wasmtest.Code takes numbers and slices of bytes")
		}
	}
	return b
}

func op(op byte, index uint32) []byte { return append([]byte{op}, U32(index)...) }

// I32Const and the others below are instructions with their immediates.
func I32Const(v int32) []byte { return append([]byte{0x41}, S64(int64(v))...) }

// I64Const pushes a constant.
func I64Const(v int64) []byte { return append([]byte{0x42}, S64(v)...) }

// Br is a branch to the lth block from inside.
func Br(l uint32) []byte { return op(0x0c, l) }

// BrIf is [Br] if the top of the stack is not zero.
func BrIf(l uint32) []byte { return op(0x0d, l) }

// BrTable branches by the top of the stack; the last label is the default.
func BrTable(labels ...uint32) []byte {
	b := append([]byte{0x0e}, U32(uint32(len(labels)-1))...)
	for _, l := range labels {
		b = append(b, U32(l)...)
	}
	return b
}

// Call calls a function.
func Call(f uint32) []byte { return op(0x10, f) }

// CallIndirect calls the element of table 0 on top of the stack.
func CallIndirect(typ uint32) []byte { return append(op(0x11, typ), 0) }

// LocalGet pushes a local.
func LocalGet(l uint32) []byte { return op(0x20, l) }

// LocalSet pops a local.
func LocalSet(l uint32) []byte { return op(0x21, l) }

// LocalTee sets a local and leaves the value on the stack.
func LocalTee(l uint32) []byte { return op(0x22, l) }

// GlobalGet pushes a global.
func GlobalGet(g uint32) []byte { return op(0x23, g) }

// GlobalSet pops a global.
func GlobalSet(g uint32) []byte { return op(0x24, g) }

// I32Load reads memory.
func I32Load(offset uint32) []byte { return append([]byte{0x28, 2}, U32(offset)...) }

// I32Store writes memory.
func I32Store(offset uint32) []byte { return append([]byte{0x36, 2}, U32(offset)...) }

// I32Load8U reads a byte.
func I32Load8U(offset uint32) []byte { return append([]byte{0x2d, 0}, U32(offset)...) }

// I32Store8 writes a byte.
func I32Store8(offset uint32) []byte { return append([]byte{0x3a, 0}, U32(offset)...) }

// MemoryGrow grows the memory by pages.
func MemoryGrow() []byte { return []byte{0x40, 0} }

// MemoryFill fills memory.
func MemoryFill() []byte { return []byte{0xfc, 11, 0} }

// MemoryCopy copies memory.
func MemoryCopy() []byte { return []byte{0xfc, 10, 0, 0} }

// MemoryInit copies from the data segment.
func MemoryInit() []byte { return []byte{0xfc, 8, 0, 0} }

// TableGrow grows table 0.
func TableGrow() []byte { return []byte{0xfc, 15, 0} }

// TableFill fills table 0.
func TableFill() []byte { return []byte{0xfc, 17, 0} }

// RefNull pushes no function.
func RefNull() []byte { return []byte{0xd0, FuncRef} }

// RefFunc pushes a reference to a function.
func RefFunc(f uint32) []byte { return op(0xd2, f) }
