package wasmtest

import (
	"math/rand/v2"
	"slices"
)

// Generate returns a random valid module, without imports, that ends: its loops
// count down, functions call only such as come before them, and each uses up fuel
// (the third global), without which it traps. It exports "run", which takes two i32 and
// gives one, its memory, and its globals, the fuel as "fuel". It may trap.
//
// There are loops, branches of all kinds, blocks with several values, direct and
// indirect calls, operations on memory and table.
func Generate(seed uint64) []byte {
	g := generator{rand: rand.New(rand.NewPCG(seed, 17))}
	return g.module()
}

type generator struct {
	rand   *rand.Rand
	m      Module
	budget int // instructions that may still be made
	depth  int
	// labels are the types on which a branch to each open block leaves the stack:
	// how many i32 it takes.
	labels  []int
	callees []uint32 // functions (i32, i32) -> i32
	pairs   []uint32 // functions (i32) -> (i32, i32)
	loops   int      // loop counters in use, locals 2 to 5
	results int      // of the function
}

const loopLocals = 4

func (g *generator) module() []byte {
	g.m = Module{
		Memory: &Range{1, 3}, Table: &Range{4, 12}, DataCount: true, Data: []byte("some data to begin with"),
		Globals: []Global{{I32, I32Const(int32(g.rand.Uint32()))}, {I32, I32Const(7)}, {I32, I32Const(3000)}},
		Custom:  map[string][]byte{"producers": {0}},
	}
	n := 1 + g.rand.IntN(5)
	for range n {
		g.budget, g.loops, g.depth = 20+g.rand.IntN(120), 0, 0
		if g.rand.IntN(4) == 0 {
			g.labels, g.results = []int{2}, 2
			code := Code(burn(), g.value(), g.value())
			f := g.m.Func([]byte{I32}, []byte{I32, I32}, slices.Repeat([]byte{I32}, loopLocals+1), code)
			g.pairs = append(g.pairs, f)
			continue
		}
		g.labels, g.results = []int{1}, 1
		code := Code(burn(), g.statements(), g.value())
		f := g.m.Func([]byte{I32, I32}, []byte{I32}, slices.Repeat([]byte{I32}, loopLocals), code)
		g.callees = append(g.callees, f)
	}
	g.budget, g.loops, g.labels, g.results = 200, 0, []int{1}, 1
	run := g.m.Func([]byte{I32, I32}, []byte{I32}, slices.Repeat([]byte{I32}, loopLocals), append(g.statements(), g.value()...))
	g.m.Elements = slices.Clone(g.callees[:min(4, len(g.callees))])
	if len(g.m.Elements) == 0 {
		// ref.func wants the function to be declared somewhere.
		g.m.Elements = []uint32{0}
	}
	if g.rand.IntN(2) == 0 {
		start := g.m.Func(nil, nil, nil, Code(GlobalGet(1), I32Const(3), I32Add, GlobalSet(1)))
		g.m.Start = &start
	}
	g.m.Export("run", run)
	g.m.ExportAs("memory", KindMemory, 0)
	g.m.ExportAs("g0", KindGlobal, 0)
	g.m.ExportAs("g1", KindGlobal, 1)
	g.m.ExportAs("fuel", KindGlobal, 2)
	return g.m.Bytes()
}

// burn uses fuel. Where there is none it stays at that: else a further call of "run"
// would begin below zero, and go on for as long as it likes.
func burn() []byte {
	return Code(GlobalGet(2), I32Eqz, If, Void, Unreachable, End, GlobalGet(2), I32Const(1), I32Sub, GlobalSet(2))
}

func (g *generator) statements() []byte {
	var code []byte
	for range 1 + g.rand.IntN(4) {
		code = append(code, g.statement()...)
	}
	return code
}

func (g *generator) spend() bool {
	g.budget--
	return g.budget > 0 && g.depth < 12
}

// local is a parameter; those after it belong to loops.
func (g *generator) local() uint32 { return uint32(g.rand.IntN(2)) }

func (g *generator) small() []byte { return Code(g.value(), I32Const(0x3ff), 0x71) } // and

// statement leaves the stack as it is.
func (g *generator) statement() []byte {
	if !g.spend() {
		return []byte{Nop}
	}
	g.depth++
	defer func() { g.depth-- }()
	switch g.rand.IntN(16) {
	case 0, 1:
		return Code(g.value(), LocalSet(g.local()))
	case 2:
		return Code(g.value(), GlobalSet(uint32(g.rand.IntN(2))))
	case 3:
		return Code(g.small(), g.value(), I32Store(uint32(g.rand.IntN(100))))
	case 4, 5:
		return g.loop()
	case 6:
		g.labels = append(g.labels, 0)
		body := Code(Block, Void, g.statements(), g.exit(0), g.statements(), End)
		g.labels = g.labels[:len(g.labels)-1]
		return body
	case 7:
		cond := g.value()
		g.labels = append(g.labels, 0)
		body := Code(cond, If, Void, g.statements(), Else, g.statements(), End)
		g.labels = g.labels[:len(g.labels)-1]
		return body
	case 8:
		return g.table()
	case 9:
		return Code(g.small(), g.value(), g.small(), MemoryFill())
	case 10:
		return Code(g.small(), g.small(), g.small(), MemoryCopy())
	case 11:
		return Code(g.small(), I32Const(int32(g.rand.IntN(8))), I32Const(int32(g.rand.IntN(15))), MemoryInit())
	case 12:
		return Code(I32Const(int32(g.rand.IntN(2))), MemoryGrow(), Drop)
	case 13:
		return Code(RefNull(), I32Const(int32(g.rand.IntN(3))), TableGrow(), Drop)
	case 14:
		return Code(I32Const(int32(4+g.rand.IntN(2))), RefNull(), I32Const(int32(g.rand.IntN(2))), TableFill())
	default:
		return Code(g.value(), Drop)
	}
}

// exit leaves a block, perhaps, from so many blocks further in.
func (g *generator) exit(in uint32) []byte {
	label := uint32(g.rand.IntN(len(g.labels)))
	takes := g.labels[len(g.labels)-1-int(label)]
	code := Code(g.values(takes), g.value(), BrIf(label+in))
	for range takes {
		code = append(code, Drop)
	}
	return code
}

func (g *generator) values(n int) []byte {
	var values []byte
	for range n {
		values = append(values, g.value()...)
	}
	return values
}

// leave leaves a loop from its body, perhaps.
func (g *generator) leave() []byte {
	switch g.rand.IntN(6) {
	case 0, 1:
		return g.exit(1)
	case 2:
		return Code(g.value(), If, Void, g.values(g.results), Return, End)
	case 3:
		labels := []uint32{0} // of the if
		for i, takes := range g.labels {
			if takes == 0 {
				labels = append(labels, uint32(len(g.labels)-1-i)+2)
			}
		}
		return Code(g.value(), If, Void, g.value(), BrTable(labels...), End)
	}
	return nil
}

// table is three blocks within each other, left by the value of a br_table.
func (g *generator) table() []byte {
	index := g.value()
	g.labels = append(g.labels, 0, 0, 0)
	inner := g.statements()
	g.labels = g.labels[:len(g.labels)-1]
	middle := g.statements()
	g.labels = g.labels[:len(g.labels)-2]
	return Code(Block, Void, Block, Void, Block, Void, inner, index, BrTable(0, 2, 1, 0), End, middle, End, End)
}

// loop counts a local of its own down. It may carry a value.
func (g *generator) loop() []byte {
	if g.loops == loopLocals {
		return []byte{Nop}
	}
	counter := uint32(2 + g.loops)
	g.loops++
	defer func() { g.loops-- }()
	init := Code(I32Const(int32(1+g.rand.IntN(9))), LocalSet(counter))
	again := Code(LocalGet(counter), I32Const(1), I32Sub, LocalTee(counter))
	leave := g.leave()
	if g.rand.IntN(2) == 0 {
		first := g.value()
		// A branch to a loop gives what it takes. Only its own may go there, as
		// else it would not end.
		g.labels = append(g.labels, 0)
		body := g.closed(g.statements)
		g.labels = g.labels[:len(g.labels)-1]
		unary := g.m.Type([]byte{I32}, []byte{I32})
		return Code(init, first, Loop, S64(int64(unary)), burn(), I32Const(5), I32Mul, body, leave, again, BrIf(0), End, LocalSet(g.local()))
	}
	body := g.closed(g.statements)
	return Code(init, Loop, Void, burn(), body, leave, again, BrIf(0), End)
}

// closed makes code that does not branch out of itself.
func (g *generator) closed(body func() []byte) []byte {
	labels := g.labels
	g.labels = []int{0}
	code := Code(Block, Void, body(), End)
	g.labels = labels
	return code
}

// value leaves an i32 on the stack.
func (g *generator) value() []byte {
	if !g.spend() {
		return LocalGet(g.local())
	}
	g.depth++
	defer func() { g.depth-- }()
	switch g.rand.IntN(14) {
	case 0:
		return I32Const(int32(g.rand.Uint32()))
	case 1, 2:
		return LocalGet(g.local())
	case 3:
		return GlobalGet(uint32(g.rand.IntN(2)))
	case 4:
		return Code(g.small(), I32Load(uint32(g.rand.IntN(200))))
	case 5:
		return Code(g.value(), g.value(), []byte{I32DivS, I32Mul, I32Mul, I32Mul}[g.rand.IntN(4)])
	case 6:
		if len(g.callees) > 0 {
			return Code(g.value(), g.value(), Call(g.callees[g.rand.IntN(len(g.callees))]))
		}
		return I32Const(1)
	case 7:
		if len(g.pairs) > 0 {
			return Code(g.value(), Call(g.pairs[g.rand.IntN(len(g.pairs))]), I32Sub)
		}
		return I32Const(2)
	case 8:
		typ := g.m.Type([]byte{I32, I32}, []byte{I32})
		// Functions in the table must be such as come before, or calls may not end.
		if len(g.callees) >= 4 {
			return Code(g.value(), g.value(), I32Const(int32(g.rand.IntN(5))), CallIndirect(typ))
		}
		return I32Const(3)
	case 9:
		cond := g.value()
		g.labels = append(g.labels, 1)
		code := Code(cond, If, I32, g.value(), Else, g.value(), End)
		g.labels = g.labels[:len(g.labels)-1]
		return code
	case 10:
		g.labels = append(g.labels, 1)
		code := Code(Block, I32, g.value(), g.value(), BrIf(0), End)
		g.labels = g.labels[:len(g.labels)-1]
		return code
	case 11:
		pair := g.m.Type(nil, []byte{I32, I32})
		g.labels = append(g.labels, 2)
		code := Code(Block, S64(int64(pair)), g.value(), g.value(), End, I32Add)
		g.labels = g.labels[:len(g.labels)-1]
		return code
	case 12:
		return []byte{0x3f, 0} // memory.size
	default:
		return Code(g.value(), g.value(), I32Add)
	}
}
