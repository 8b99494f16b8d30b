package meter

// The import that a metered module has besides its own.
const (
	PollModule = "shoal_meter"
	PollName   = "poll"
)

// DefaultInterval is the number of steps between two calls of the poll.
const DefaultInterval = 1 << 17

// Options say how to meter.
type Options struct {
	// Interval is the number of steps between two calls of the poll, at least
	// 1; 0 is [DefaultInterval].
	Interval int32
	// MaxTable is the number of elements to which a table may grow; 0 is the
	// limit that the module was parsed with. A table that begins larger cannot
	// grow.
	MaxTable uint32
}

// Rewrite returns the metered module. It does not share memory with the
// original.
func (m *Module) Rewrite(o Options) []byte {
	w := rewriter{
		m:        m,
		interval: or(o.Interval, DefaultInterval),
		maxTable: or(o.MaxTable, m.limits.TableSize),
	}
	size := 256
	for _, s := range m.sections {
		if s != nil {
			size += len(s.b) + len(s.b)/4
		}
	}
	out := append(make([]byte, 0, size), "\x00asm\x01\x00\x00\x00"...)
	for _, id := range []byte{
		secType, secImport, secFunction, secTable, secMemory, secGlobal, secExport,
		secStart, secElement, secDataCount, secCode, secData,
	} {
		out = w.section(out, id)
	}
	return w.names(out)
}

type rewriter struct {
	m        *Module
	interval int32
	maxTable uint32
}

// shift gives the new index of a function.
func (w *rewriter) shift(f uint32) uint32 {
	if f >= w.m.importedFuncs {
		return f + 1
	}
	return f
}

// appendSection appends a section made by fill. Its length is written in five
// bytes, since it is known only afterwards.
func appendSection(out []byte, id byte, fill func([]byte) []byte) []byte {
	out = append(out, id, 0x80, 0x80, 0x80, 0x80, 0x00)
	start := len(out)
	out = fill(out)
	putLength(out[start-5:], len(out)-start)
	return out
}

func putLength(at []byte, n int) {
	for i := range 4 {
		at[i] = byte(n>>(7*i)) | 0x80
	}
	at[4] = byte(n >> 28)
}

// section appends a section, changed where needed.
func (w *rewriter) section(out []byte, id byte) []byte {
	s := w.m.sections[id]
	switch id {
	case secType, secImport, secFunction, secGlobal, secCode:
		// Each gets one more element; it may have had none.
	default:
		if s == nil {
			return out
		}
	}
	var r reader
	if s != nil {
		r = *s
	}
	return appendSection(out, id, func(out []byte) []byte {
		switch id {
		case secType:
			return append(w.oneMore(out, &r), 0x60, 0, 0)
		case secImport:
			out = w.oneMore(out, &r)
			out = appendName(appendName(out, PollModule), PollName)
			return appendU32(append(out, byte(Func)), w.voidType())
		case secFunction:
			return appendU32(w.oneMore(out, &r), w.voidType())
		case secTable:
			return w.tables(out, &r)
		case secGlobal:
			return w.globals(out, &r)
		case secExport:
			return w.exports(out, &r)
		case secStart:
			return appendU32(out, w.shift(r.u32()))
		case secElement:
			return w.elements(out, &r)
		case secCode:
			return w.code(out)
		default:
			return append(out, r.b...)
		}
	})
}

// oneMore appends a vector with its count increased, and the rest as it is.
func (w *rewriter) oneMore(out []byte, r *reader) []byte {
	n := uint32(0)
	if r.b != nil {
		n = r.u32()
	}
	return append(appendU32(out, n+1), r.b[r.off:]...)
}

func appendName(out []byte, name string) []byte {
	return append(appendU32(out, uint32(len(name))), name...)
}

func (w *rewriter) voidType() uint32 { return uint32(len(w.m.types)) }

// counter is the index of the counter, refill that of the function that winds
// it up.
func (w *rewriter) counter() uint32 { return w.m.globals }
func (w *rewriter) refill() uint32  { return w.m.funcs + 1 }

// tables gives every table a maximum. One that begins larger stays as large.
func (w *rewriter) tables(out []byte, r *reader) []byte {
	n := r.u32()
	out = appendU32(out, n)
	for _, t := range w.m.Tables {
		out = append(out, r.byte(), 1)
		parseRange(r, "table")
		limit := max(w.maxTable, t.Min)
		if t.Bounded && t.Max < limit {
			limit = t.Max
		}
		out = appendU32(appendU32(out, t.Min), limit)
	}
	return out
}

func (w *rewriter) globals(out []byte, r *reader) []byte {
	n := uint32(0)
	if r.b != nil {
		n = r.u32()
	}
	out = appendU32(out, n+1)
	for range n {
		at := r.off
		w.m.globalType(r)
		out = append(out, r.b[at:r.off]...)
		out = w.patched(out, r, w.m.constExpr)
	}
	return append(appendS32(append(out, 0x7f, 1, opI32Const), w.interval), opEnd)
}

// patched appends what pass reads, with the indices of functions that it finds
// shifted.
func (w *rewriter) patched(out []byte, r *reader, pass func(*reader, func(at, end int, f uint32))) []byte {
	last := r.off
	pass(r, func(at, end int, f uint32) {
		out = appendU32(append(out, r.b[last:at]...), w.shift(f))
		last = end
	})
	return append(out, r.b[last:r.off]...)
}

func (w *rewriter) exports(out []byte, r *reader) []byte {
	n := r.u32()
	out = appendU32(out, n)
	for range n {
		at := r.off
		r.bytes(int(r.u32()))
		kind := r.byte()
		out = append(out, r.b[at:r.off]...)
		index := r.u32()
		if Kind(kind) == Func {
			index = w.shift(index)
		}
		out = appendU32(out, index)
	}
	return out
}

func (w *rewriter) elements(out []byte, r *reader) []byte {
	n := r.u32()
	out = appendU32(out, n)
	for range n {
		out = w.patched(out, r, w.m.element)
	}
	return out
}

func (w *rewriter) code(out []byte) []byte {
	out = appendU32(out, uint32(len(w.m.bodies)+1))
	walk := walker{m: w.m}
	var edits []edit
	for i, b := range w.m.bodies {
		sig := w.m.types[w.m.funcTypes[i]]
		edits = edits[:0]
		r := *b
		walk.walk(&r, sig, &edits)
		out = append(out, 0x80, 0x80, 0x80, 0x80, 0x00)
		start := len(out)
		out = w.apply(out, b.b, edits, uint32(walk.locals))
		putLength(out[start-5:], len(out)-start)
	}
	return w.refillBody(out)
}

// apply appends code with its edits. local is the index of the added local.
func (w *rewriter) apply(out, code []byte, edits []edit, local uint32) []byte {
	last := 0
	for i, e := range edits {
		out = append(out, code[last:e.at]...)
		last = e.end
		switch e.kind {
		case editLocals:
			out = appendU32(out, e.arg)
		case editTick:
			if i == 1 { // the entry: the locals end here
				out = append(out, 1, 0x7f)
			}
			if e.arg > 0 {
				out = w.tick(out, local, int32(e.arg))
			}
		case editOuter:
			out = append(out, code[e.at:e.arg]...)
			out = w.unlessLeft(out, opGlobalGet, w.counter())
		case editInner:
			out = w.inner(out, local, int32(e.arg))
		case editEnd:
			out = append(out, opEnd)
		case editLocalOuter:
			out = w.load(out, local)
			out = append(out, code[e.at:e.arg]...)
			out = w.load(w.unlessLeft(out, opLocalGet, local), local)
		case editLocalInner:
			out = w.localInner(out, local, int32(e.arg))
		case editLocalEnd:
			out = append(w.store(out, local), opEnd)
		case editLeave:
			out = w.store(out, local)
		case editBulk:
			out = w.bulk(out, local, e.arg)
		case editGrow:
			out = appendU32(append(out, opCall), w.refill())
		case editIndex:
			out = appendU32(out, e.arg)
		}
	}
	return append(out, code[last:]...)
}

// tick appends: counter -= weight; if counter <= 0, refill.
func (w *rewriter) tick(out []byte, local uint32, weight int32) []byte {
	out = appendU32(append(out, opGlobalGet), w.counter())
	out = appendS32(append(out, opI32Const), weight)
	out = append(out, opI32Sub)
	return w.settle(out, local)
}

// inner appends: if counter <= 0, back to the outer loop; counter -= weight. The
// outer loop winds the counter up, so that it is not come back from at once.
func (w *rewriter) inner(out []byte, local uint32, weight int32) []byte {
	out = appendU32(append(out, opGlobalGet), w.counter())
	out = appendU32(append(out, opLocalTee), local)
	out = append(out, opI32Const, 0, opI32LeS, opBrIf, 1)
	out = appendU32(append(out, opLocalGet), local)
	out = append(appendS32(append(out, opI32Const), weight), opI32Sub)
	return appendU32(append(out, opGlobalSet), w.counter())
}

// localInner is inner with the counter in a local.
func (w *rewriter) localInner(out []byte, local uint32, weight int32) []byte {
	out = appendU32(append(out, opLocalGet), local)
	out = append(out, opI32Const, 0, opI32LeS, opBrIf, 1)
	out = appendU32(append(out, opLocalGet), local)
	out = append(appendS32(append(out, opI32Const), weight), opI32Sub)
	return appendU32(append(out, opLocalSet), local)
}

// load appends local = counter, store the opposite.
func (w *rewriter) load(out []byte, local uint32) []byte {
	out = appendU32(append(out, opGlobalGet), w.counter())
	return appendU32(append(out, opLocalSet), local)
}

func (w *rewriter) store(out []byte, local uint32) []byte {
	out = appendU32(append(out, opLocalGet), local)
	return appendU32(append(out, opGlobalSet), w.counter())
}

// bulk appends, with a length n on top of the stack which stays there:
// counter -= 1 + n >> log2; if counter <= 0, refill. The counter is above minus
// the weight of a body before, and n >> log2 less than 2^29, so this does not
// overflow.
func (w *rewriter) bulk(out []byte, local, log2 uint32) []byte {
	out = appendU32(append(out, opLocalTee), local)
	out = appendU32(append(out, opGlobalGet), w.counter())
	out = append(out, opI32Const, 1, opI32Sub)
	out = appendU32(append(out, opLocalGet), local)
	out = append(out, opI32Const, byte(log2), opI32ShrU, opI32Sub)
	return w.settle(out, local)
}

// settle appends what takes the new value of the counter from the stack.
func (w *rewriter) settle(out []byte, local uint32) []byte {
	out = appendU32(append(out, opLocalTee), local)
	out = appendU32(append(out, opGlobalSet), w.counter())
	out = append(appendU32(append(out, opLocalGet), local), opI32Const, 0, opI32LeS, opIf, 0x40)
	out = appendU32(append(out, opCall), w.refill())
	return append(out, opEnd)
}

// unlessLeft appends: if counter <= 0, refill. get is the instruction that gets
// the counter. It is a block with a branch out of it rather than an if, since the
// compiler goes on from the first of two ways as to what is in registers: that has
// to be the one without the call.
func (w *rewriter) unlessLeft(out []byte, get byte, index uint32) []byte {
	out = appendU32(append(out, opBlock, 0x40, get), index)
	out = append(out, opI32Const, 0, opI32GtS, opBrIf, 0)
	out = appendU32(append(out, opCall), w.refill())
	return append(out, opEnd)
}

func (w *rewriter) refillBody(out []byte) []byte {
	code := appendS32([]byte{0, opI32Const}, w.interval)
	code = appendU32(append(code, opGlobalSet), w.counter())
	code = appendU32(append(code, opCall), w.m.importedFuncs)
	code = append(code, opEnd)
	return append(appendU32(out, uint32(len(code))), code...)
}

// names appends the names of the module and its functions, if they were given
// and are well-formed.
func (w *rewriter) names(out []byte) []byte {
	if w.m.names == nil {
		return out
	}
	r := *w.m.names
	before := len(out)
	out = appendSection(out, secCustom, func(out []byte) []byte {
		out = appendName(out, "name")
		for r.err == nil && !r.done() {
			id := r.byte()
			sub := r.sized()
			if r.err != nil {
				break
			}
			switch id {
			case 0:
				name := sub.name("the name of the module", len(sub.b))
				out = appendSection(out, id, func(out []byte) []byte { return appendName(out, name) })
			case 1:
				out = appendSection(out, id, func(out []byte) []byte { return w.functionNames(out, sub) })
			default: // names of locals and what comes later are not kept
				return out
			}
			r.nested(sub, "names")
		}
		return out
	})
	if r.err != nil {
		return out[:before]
	}
	return out
}

func (w *rewriter) functionNames(out []byte, r *reader) []byte {
	n := r.count("names of functions", w.m.limits.Functions)
	out = appendU32(out, uint32(n))
	next := uint64(0)
	for ; n > 0 && r.err == nil; n-- {
		f := w.m.funcIndex(r)
		if uint64(f) < next {
			r.invalid("names of functions out of order")
		}
		next = uint64(f) + 1
		out = appendName(appendU32(out, w.shift(f)), r.name("the name of a function", len(r.b)))
	}
	return out
}
