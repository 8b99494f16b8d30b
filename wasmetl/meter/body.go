package meter

// Instructions that the rewriter has to know by name.
const (
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opSelectTyped  = 0x1c
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF32Const     = 0x43
	opF64Const     = 0x44
	opI32GtS       = 0x4a
	opI32LeS       = 0x4c
	opI32Sub       = 0x6b
	opI32ShrU      = 0x76
	opRefNull      = 0xd0
	opRefFunc      = 0xd2
	opBulk         = 0xfc
	opVector       = 0xfd
)

// Of the instructions with prefix 0xfc.
const (
	bulkMemoryInit = 8
	bulkDataDrop   = 9
	bulkMemoryCopy = 10
	bulkMemoryFill = 11
	bulkTableInit  = 12
	bulkElemDrop   = 13
	bulkTableCopy  = 14
	bulkTableGrow  = 15
	bulkTableSize  = 16
	bulkTableFill  = 17
)

const (
	// instructionsPerStep is how many instructions without a step weigh one.
	instructionsPerStep = 64
	// callWeight is what a call weighs, in instructions, beside what its
	// function counts: such as do not count have at most uncounted of them.
	callWeight = 8
	uncounted  = 32
	// A step of a bulk operation is 64 bytes or 8 elements.
	bytesPerStepLog2    = 6
	elementsPerStepLog2 = 3
)

// edit is a change of a function's code: what is inserted at, or put in place
// of the bytes from at to end.
type edit struct {
	at, end int
	kind    editKind
	// arg is the weight of a tick, the end of a loop's type, the loop that a branch
	// leaves, the logarithm of the bytes or elements a step of a bulk operation, or
	// the new index of a call or a branch.
	arg uint32
}

type editKind byte

const (
	editLocals     editKind = iota // the number of groups of locals; arg is the new one
	editTick                       // a step is taken; the first says also that the locals end here
	editOuter                      // a loop begins in which the poll is called for the one that follows
	editInner                      // a step is taken in the loop that follows an outer one
	editEnd                        // an outer loop ends
	editLocalOuter                 // those of a loop that counts in a local
	editLocalInner
	editLocalEnd
	editLeave // the counter is put back: a loop that counts in a local may be left here
	editNone  // nothing
	editBulk  // steps by the number on top of the stack
	editGrow  // the poll is called
	editIndex // the index of a function or a branch
)

// walker passes through the code of functions, checks it and finds what is to
// be changed. It is reused from function to function.
type walker struct {
	m      *Module
	r      *reader
	frames []frame // the open blocks
	parts  []part  // what is counted together: first the function without its loops
	locals uint64
	busy   bool // it loops, calls, or works on ranges
	edits  *[]edit
}

// part is a function or a loop without the loops in it.
type part struct {
	instructions     uint32
	frame            int // where it is in frames, while it is open
	tick, outer, end int // edits: the tick, the begin and end of a loop's outer one
	// local says that a loop may count in a local: within it, nothing else counts.
	local bool
}

// frame is an open block.
type frame struct {
	part int // where its instructions are counted
	// outer is how many loops it is and is in: so many more are put around them.
	outer uint32
	loop  bool
}

// walk reads one function, and appends to edits, if not nil, what is to be
// changed, in order. The first edits are the locals and the entry's tick.
func (w *walker) walk(r *reader, sig signature, edits *[]edit) {
	w.r, w.edits, w.busy = r, edits, false
	w.frames, w.parts = append(w.frames[:0], frame{}), append(w.parts[:0], part{})
	w.readLocals(uint64(len(sig.params)))
	w.parts[0].tick = w.edit(edit{at: r.off, end: r.off, kind: editTick})
	for r.err == nil && len(w.frames) > 0 {
		w.instruction()
	}
	if r.err != nil || edits == nil {
		return
	}
	w.settle(*edits)
}

// settle decides what is known only at the function's end.
func (w *walker) settle(edits []edit) {
	for _, p := range w.parts {
		edits[p.tick].arg = 1 + p.instructions/instructionsPerStep
		if p.local {
			edits[p.outer].kind, edits[p.tick].kind, edits[p.end].kind = editLocalOuter, editLocalInner, editLocalEnd
		}
	}
	for i := range edits {
		if e := &edits[i]; e.kind == editLeave && !w.parts[e.arg].local {
			e.kind = editNone
		}
	}
	if !w.busy && w.parts[0].instructions <= uncounted {
		edits[w.parts[0].tick].arg = 0
	}
}

func (w *walker) edit(e edit) int {
	if w.edits == nil {
		return 0
	}
	*w.edits = append(*w.edits, e)
	return len(*w.edits) - 1
}

func (w *walker) readLocals(params uint64) {
	r := w.r
	groups := uint32(r.count("groups of locals", w.m.limits.Locals))
	w.edit(edit{at: 0, end: r.off, kind: editLocals, arg: groups + 1})
	w.locals = params
	for ; groups > 0 && r.err == nil; groups-- {
		w.locals += uint64(r.u32())
		checkValueType(r, r.byte())
		if r.err == nil && w.locals > uint64(w.m.limits.Locals) {
			r.limit("locals in a function", w.locals, uint64(w.m.limits.Locals))
		}
	}
}

func (w *walker) top() frame { return w.frames[len(w.frames)-1] }

func (w *walker) open(f frame) {
	if len(w.frames) > w.m.limits.Nesting {
		w.r.limit("blocks within each other", uint64(len(w.frames)), uint64(w.m.limits.Nesting))
		return
	}
	w.frames = append(w.frames, f)
}

// block opens a block that is no loop.
func (w *walker) block() {
	f := w.top()
	f.loop = false
	w.open(f)
}

// label reads a branch's label and finds the block that it means.
func (w *walker) label() (l, to int) {
	n := w.r.u32()
	if w.r.err == nil && n >= uint32(len(w.frames)) {
		w.r.invalid("a branch to block %d of %d", n, len(w.frames))
	}
	if w.r.err != nil {
		return 0, len(w.frames) - 1
	}
	return int(n), len(w.frames) - 1 - int(n)
}

// branch reads the label of the instruction at.
func (w *walker) branch(at int) {
	from := w.r.off
	l, to := w.label()
	if to < w.parts[w.top().part].frame {
		w.leave(at)
	}
	w.redirect(from, l, to)
}

// branches reads the labels of a table.
func (w *walker) branches(at int) {
	n := w.r.count("branches", uint32(w.m.limits.Body))
	w.leave(at)
	for ; n >= 0 && w.r.err == nil; n-- {
		from := w.r.off
		l, to := w.label()
		w.redirect(from, l, to)
	}
}

// redirect gives a label its new number: it goes up by the outer loops on the way.
func (w *walker) redirect(from, l, to int) {
	if more := w.top().outer - w.frames[to].outer; more > 0 {
		w.edit(edit{at: from, end: w.r.off, kind: editIndex, arg: uint32(l) + more})
	}
}

// leave notes that the instruction at may leave the loop that it is in.
func (w *walker) leave(at int) {
	w.edit(edit{at: at, end: at, kind: editLeave, arg: uint32(w.top().part)})
}

func (w *walker) blockType() {
	at := w.r.off
	t := w.r.signed(33)
	switch {
	case w.r.err != nil || t == -64:
	case t >= int64(len(w.m.types)):
		w.r.off = at
		w.r.invalid("type %d of %d", t, len(w.m.types))
	case t < 0 && (t < -64 || valueTypes[byte(t&0x7f)] == ""):
		w.r.off = at
		w.r.invalid("unknown block type %d", t)
	}
}

// instruction reads one instruction with its immediates.
func (w *walker) instruction() {
	r := w.r
	op := r.byte()
	if r.err != nil {
		return
	}
	at := r.off - 1
	w.parts[w.top().part].instructions++
	switch {
	case op <= 0x01, op == 0x1a, op == 0x1b, op >= 0x45 && op <= 0xc4, op == 0xd1:
	case op == opBlock, op == opIf:
		w.blockType()
		w.block()
	case op == opLoop:
		w.loop(at)
	case op == opElse:
		if len(w.frames) == 1 {
			r.invalid("else outside of a block")
		}
	case op == opEnd:
		if f := w.top(); f.loop {
			w.parts[f.part].end = w.edit(edit{at: r.off, end: r.off, kind: editEnd})
		}
		w.frames = w.frames[:len(w.frames)-1]
	case op == opReturn:
		w.leave(at)
	case op == opBr, op == opBrIf:
		w.branch(at)
	case op == opBrTable:
		w.branches(at)
	case op == opCall:
		w.call()
		w.function()
	case op == opCallIndirect:
		w.call()
		w.m.typeIndex(r)
		w.m.tableIndex(r)
	case op == opSelectTyped:
		for n := r.count("types of a select", 16); n > 0 && r.err == nil; n-- {
			checkValueType(r, r.byte())
		}
	case op >= opLocalGet && op <= opLocalTee:
		if l := r.u32(); r.err == nil && uint64(l) >= w.locals {
			r.invalid("local %d of %d", l, w.locals)
		}
	case op == opGlobalGet, op == opGlobalSet:
		w.m.globalIndex(r)
	case op == 0x25, op == 0x26:
		w.m.tableIndex(r)
	case op >= 0x28 && op <= 0x3e:
		w.memoryArgument()
	case op == 0x3f:
		w.zero()
	case op == opMemoryGrow:
		w.grow(at)
		w.zero()
	case op == opI32Const:
		r.signed(32)
	case op == opI64Const:
		r.signed(64)
	case op == opF32Const:
		r.bytes(4)
	case op == opF64Const:
		r.bytes(8)
	case op == opRefNull:
		if t := r.byte(); r.err == nil && t != 0x70 && t != 0x6f {
			r.invalid("null of type %#x", t)
		}
	case op == opRefFunc:
		w.function()
	case op == opBulk:
		w.bulk(at)
	case op == opVector:
		w.vector()
	default:
		r.off--
		w.refuse(op)
	}
}

func (w *walker) refuse(op byte) {
	switch op {
	case 0x06, 0x07, 0x08, 0x09, 0x0a, 0x18, 0x19, 0x1f:
		w.r.invalid("instruction %#x: exceptions are off", op)
	case 0x12, 0x13, 0x15:
		w.r.invalid("instruction %#x: tail calls are off", op)
	case 0xfe:
		w.r.invalid("instruction %#x: threads are off", op)
	default:
		w.r.invalid("unknown instruction %#x", op)
	}
}

// loop begins a loop: within an outer one of the same type, to which it goes back
// when the poll is to be called. A call in the loop itself would cost more than
// the counting, since the compiler keeps what lives across calls in memory. What
// a loop takes lies on the stack where it begins, so that the outer one has it too.
func (w *walker) loop(at int) {
	w.work()
	w.blockType()
	p := part{frame: len(w.frames), local: true}
	p.outer = w.edit(edit{at: at, end: at, kind: editOuter, arg: uint32(w.r.off)})
	p.tick = w.edit(edit{at: w.r.off, end: w.r.off, kind: editInner})
	w.open(frame{part: len(w.parts), outer: w.top().outer + 1, loop: true})
	w.parts = append(w.parts, p)
}

// work notes that something counts in what is open.
func (w *walker) work() {
	w.busy = true
	w.parts[w.top().part].local = false
}

func (w *walker) call() {
	w.work()
	w.parts[w.top().part].instructions += callWeight
}

// function reads a function's index, which goes up by one if it is a defined one.
func (w *walker) function() {
	at := w.r.off
	if f := w.m.funcIndex(w.r); w.r.err == nil && f >= w.m.importedFuncs {
		w.edit(edit{at: at, end: w.r.off, kind: editIndex, arg: f + 1})
	}
}

func (w *walker) memoryArgument() {
	if align := w.r.u32(); w.r.err == nil && align >= 32 {
		w.r.invalid("alignment 2^%d", align)
	}
	w.r.u32()
}

func (w *walker) zero() {
	if i := w.r.byte(); w.r.err == nil && i != 0 {
		w.r.invalid("memory %d", i)
	}
}

func (w *walker) grow(at int) {
	w.work()
	w.edit(edit{at: at, end: at, kind: editGrow})
}

func (w *walker) segment(n uint32, what string) {
	if i := w.r.u32(); w.r.err == nil && i >= n {
		w.r.invalid("%s segment %d of %d", what, i, n)
	}
}

func (w *walker) bulk(at int) {
	r := w.r
	sub := r.u32()
	if r.err != nil {
		return
	}
	metered := func(log2 uint32) {
		w.work()
		w.edit(edit{at: at, end: at, kind: editBulk, arg: log2})
	}
	switch sub {
	case 0, 1, 2, 3, 4, 5, 6, 7: // saturating conversions
	case bulkMemoryInit:
		metered(bytesPerStepLog2)
		w.segment(w.m.dataCount, "data")
		w.zero()
	case bulkDataDrop:
		w.segment(w.m.dataCount, "data")
	case bulkMemoryCopy:
		metered(bytesPerStepLog2)
		w.zero()
		w.zero()
	case bulkMemoryFill:
		metered(bytesPerStepLog2)
		w.zero()
	case bulkTableInit:
		metered(elementsPerStepLog2)
		w.segment(w.m.segments, "element")
		w.m.tableIndex(r)
	case bulkElemDrop:
		w.segment(w.m.segments, "element")
	case bulkTableCopy:
		metered(elementsPerStepLog2)
		w.m.tableIndex(r)
		w.m.tableIndex(r)
	case bulkTableGrow:
		w.grow(at)
		w.m.tableIndex(r)
	case bulkTableSize:
		w.m.tableIndex(r)
	case bulkTableFill:
		metered(elementsPerStepLog2)
		w.m.tableIndex(r)
	default:
		r.invalid("unknown instruction 0xfc %d", sub)
	}
}

func (w *walker) vector() {
	r := w.r
	sub := r.u32()
	switch {
	case r.err != nil:
	case sub <= 11, sub == 92, sub == 93:
		w.memoryArgument()
	case sub == 12, sub == 13:
		r.bytes(16)
	case sub >= 21 && sub <= 34:
		r.byte()
	case sub >= 84 && sub <= 91:
		w.memoryArgument()
		r.byte()
	case sub > 255:
		r.invalid("vector instruction %d: relaxed SIMD is off", sub)
	}
}
