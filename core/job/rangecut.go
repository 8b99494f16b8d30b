package job

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// above stands for the end of all keys that have what comes before it as prefix.
// It is the last letter there is, and no key that anybody uses has it.
const above = "\U0010FFFF"

// shape is what a lister knows of the keys that it has seen, from which it
// guesses where in the rest of its range the middle is. For each letter of the last
// key it counts the keys that have all letters before that one in common with
// it, and in how many branches they go on.
//
// A letter that all of them share says nothing of what comes later: there may be as
// many keys again behind every other letter, or none. Such an open level is asked
// about by a probe. Where there are branches that are through, what is left is
// reckoned by their size.
type shape struct {
	// skip is the length of the prefix that is asked for, size that of a page.
	skip   int
	size   int
	last   string
	seen   int64
	levels []level
	// recent are the keys of the last page.
	recent []string
}

// level is a letter of the last key.
type level struct {
	at   int // where it begins
	size int
	// keys were seen with what comes before the letter, in so many branches.
	keys, branches int64
}

// page adds a page of keys, in order and behind those before.
func (s *shape) page(keys []string) {
	for _, k := range keys {
		s.add(k)
	}
	if len(keys) > 0 {
		s.recent = keys
	}
}

func (s *shape) add(key string) {
	common := s.common(key)
	i := 0
	for i < len(s.levels) && s.levels[i].at < common {
		s.levels[i].keys++
		i++
	}
	if i < len(s.levels) && s.levels[i].at == common && common < len(key) {
		// Here the keys branch.
		_, size := utf8.DecodeRuneInString(key[common:])
		s.levels[i].keys++
		s.levels[i].branches++
		s.levels[i].size = size
		i++
	}
	s.levels = s.levels[:i]
	at := s.skip
	if i > 0 {
		at = s.levels[i-1].at + s.levels[i-1].size
	}
	for at < len(key) {
		_, size := utf8.DecodeRuneInString(key[at:])
		s.levels = append(s.levels, level{at: at, size: size, keys: 1, branches: 1})
		at += size
	}
	s.last = key
	s.seen++
}

// common returns how much of the last key the key begins with, in whole letters.
func (s *shape) common(key string) int { return commonPrefix(s.last, key) }

func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	i := 0
	for i < n && a[i] == b[i] {
		i++
	}
	for i > 0 && (i < len(a) && !utf8.RuneStart(a[i]) || i < len(b) && !utf8.RuneStart(b[i])) {
		i--
	}
	return i
}

// place is a level with what is guessed of it.
type place struct {
	level
	index   int      // among the levels
	letters alphabet // that may follow
	open    bool
	counts  bool    // the word has digits
	each    float64 // keys of a branch
}

func (p *place) left() float64 { return p.each * float64(p.letters.count()) }

// places returns the levels at which there may be more keys up to an end, the
// shallowest first. Where keys are known to go on about to the end, near, no level is
// open: those that count are taken to go through all that they may be.
func (s *shape) places(end string, near bool) []place {
	var out []place
	room := -1.0 // how many keys there may yet be below, as shallower levels say
	common := commonPrefix(s.last, end)
	all := make([]kinds, len(s.levels))
	for i := range s.levels {
		if s.levels[i].keys > 1 {
			all[i] = s.kinds(i)
		}
	}
	sizes := s.sizes(all)
	for i := range s.levels {
		l := &s.levels[i]
		if end != "" && l.at < common {
			continue
		}
		letter, _ := utf8.DecodeRuneInString(s.last[l.at:])
		below := l.keys
		if i+1 < len(s.levels) {
			below = s.levels[i+1].keys
		}
		p := place{level: *l, index: i, letters: all[i].letters(letter), counts: all[i].digits || s.varies(i), each: sizes[i]}
		if end != "" && l.at == common && len(end) > l.at {
			top, _ := utf8.DecodeRuneInString(end[l.at:])
			p.letters = p.letters.upTo(top)
		}
		switch {
		case l.branches > 1:
			room = 2*p.each - float64(below)
			if room < 0 {
				room = -1
			}
		case l.keys < s.few() || room >= 0 || !isWord(letter):
			continue
		case !near:
			p.open = true
		case !p.counts && l.at > common:
			continue
		}
		if p.letters.count() > 0 {
			out = append(out, p)
		}
	}
	return out
}

// sizes returns about how many keys a branch of each level has: where some are
// through, as many as those; else as many as all branches of the next level together,
// if that counts.
func (s *shape) sizes(all []kinds) []float64 {
	out := make([]float64, len(s.levels))
	for i := range slices.Backward(s.levels) {
		l := &s.levels[i]
		below := l.keys
		if i+1 < len(s.levels) {
			below = s.levels[i+1].keys
		}
		out[i] = float64(below)
		switch {
		case l.branches > 1:
			out[i] = float64(l.keys-below) / float64(l.branches-1)
		case i+1 < len(s.levels) && l.keys >= s.few():
			n := 1
			if next := &s.levels[i+1]; next.branches > 1 || all[i+1].digits || s.varies(i+1) {
				n = max(all[i+1].letters(-1).count(), 1)
			}
			out[i] = max(out[i], float64(n)*out[i+1])
		}
	}
	return out
}

const (
	// littlePages is how many pages are not worth cutting, muchPages a guess at
	// what is left where that is open.
	littlePages = 3
	muchPages   = 50
)

// few keys are too few to say that what they have in common means something.
func (s *shape) few() int64 { return int64(min(64, s.size/2)) }

// guess is a key behind which there may be more.
type guess struct {
	key string
	// at is the level that it is about; of one behind which something was found,
	// where that differs from the last key.
	at   int
	open bool
	// counts: the level is of a word that counts.
	counts bool
}

// probeAt is how much of what is left is before a key that is probed, if no level is
// open: what goes on there is taken to go on to the end.
const probeAt = 0.75

// guess returns a key that most of what is left is before, or false if too little is
// left. Nothing is between it and the end, if that is not "". best, if not nil, is a
// key with something above it: then only what may be better is returned.
func (s *shape) guess(end string, best *guess) (guess, bool) {
	places := s.places(end, false)
	if g, ok := s.openGuess(places, best, true); ok || best != nil && best.counts {
		return g, ok
	}
	total := sum(places)
	if best != nil || total < float64(littlePages*s.size) {
		return s.openGuess(places, best, false)
	}
	return guess{key: s.quantile(places, probeAt*total, false), at: len(s.last)}, true
}

// letter is what is known of the letter up to which keys go on at a level: it is
// some of these, and first surely.
type letter struct {
	at      int
	letters alphabet
}

// letterAt returns what may be behind a key that was found, at the level at which it
// differs from the last key, up to an end.
func (s *shape) letterAt(found, end string) (letter, bool) {
	at := commonPrefix(s.last, found)
	i := slices.IndexFunc(s.levels, func(l level) bool { return l.at == at })
	if i < 0 || at >= len(found) {
		return letter{}, false
	}
	first, _ := utf8.DecodeRuneInString(found[at:])
	k := s.kinds(i)
	k.add(first)
	a := k.letters(first - 1)
	if common := commonPrefix(s.last, end); end != "" && common == at && len(end) > at {
		top, _ := utf8.DecodeRuneInString(end[at:])
		a = a.upTo(top)
	}
	return letter{at, a}, a.count() > 0
}

// end returns a key behind all that begins with the last of the letters.
func (s *shape) endOf(l letter) string {
	return s.last[:l.at] + string(l.letters.at(l.letters.count()-1)) + above
}

// halve returns a key behind the first part of the letters, false if one is left or
// the rest are few of what there were.
func (s *shape) halve(l letter, first bool) (guess, bool) {
	n := l.letters.count()
	if n < 2 {
		return guess{}, false
	}
	k := (n - 1) / 2
	if first {
		k = (n - 1) / 3
	}
	return guess{key: s.last[:l.at] + string(l.letters.at(k)) + above, at: l.at}, true
}

// sum is what is left at all places that are not open.
func sum(places []place) (total float64) {
	for i := range places {
		if !places[i].open {
			total += places[i].left()
		}
	}
	return total
}

// quantile returns a key behind so many of the keys that are left: at the end of a
// letter's branch, or where it is finer within one.
func (s *shape) quantile(places []place, before float64, fine bool) string {
	for i := range slices.Backward(places) {
		p := &places[i]
		if p.open || p.left() <= 0 {
			continue
		}
		if before >= p.left() && i > 0 {
			before -= p.left()
			continue
		}
		letters := min(before/p.each, float64(p.letters.count()))
		if !fine {
			return s.last[:p.at] + string(p.letters.at(max(min(int(letters+0.5), p.letters.count())-1, 0))) + above
		}
		k := min(int(letters), p.letters.count()-1)
		return s.last[:p.at] + string(p.letters.at(k)) + s.within(p.index+1, letters-float64(k))
	}
	return s.last + above
}

// within continues a key behind so much of the branch that it begins, as far as the
// next levels count.
func (s *shape) within(i int, part float64) string {
	const most = 4
	var b strings.Builder
	for n := 0; n < most && i < len(s.levels); n++ {
		letter, _ := utf8.DecodeRuneInString(s.last[s.levels[i].at:])
		k := s.kinds(i)
		if !isWord(letter) || s.levels[i].branches == 1 && !k.digits && !s.varies(i) {
			break
		}
		letters := k.letters(-1)
		x := part * float64(letters.count())
		j := min(int(x), letters.count()-1)
		b.WriteRune(letters.at(j))
		part = x - float64(j)
		i++
	}
	return b.String()
}

// cuts returns keys that divide what is left up to an end into n parts and one, of
// about the same size, in order. There may be fewer.
func (s *shape) cuts(end string, near bool, n int) []string {
	places := s.places(end, near)
	total := sum(places)
	var out []string
	last := s.last
	for i := range n {
		key := s.quantile(places, total*float64(i+1)/float64(n+1), true)
		if key > last && (end == "" || key < end) {
			out = append(out, key)
			last = key
		}
	}
	return out
}

// openGuess looks for the shallowest of the open levels that has more, by halves:
// most of what is left is there. Words that count are for themselves: they have
// more rather than others.
func (s *shape) openGuess(places []place, best *guess, counts bool) (guess, bool) {
	var open []*place
	for i := range places {
		if p := &places[i]; p.open && p.counts == counts && (best == nil || p.at < best.at) {
			open = append(open, p)
		}
	}
	if len(open) == 0 {
		return guess{}, false
	}
	k := len(open) / 2
	p := open[k]
	letter, _ := utf8.DecodeRuneInString(s.last[p.at:])
	return guess{key: s.last[:p.at] + string(letter) + above, at: p.at, open: true, counts: counts}, true
}

// left is about how many keys are left up to an end.
func (s *shape) left(end string, near bool) int64 {
	places := s.places(end, near)
	for i := range places {
		if places[i].open {
			return int64(muchPages * s.size)
		}
	}
	return int64(min(sum(places), 1e15))
}

// alphabet is a set of letters, as runs in order.
type alphabet []letterRun

type letterRun struct{ first, last rune }

func (a alphabet) count() (n int) {
	for _, r := range a {
		n += int(r.last-r.first) + 1
	}
	return n
}

// at returns the i-th letter.
func (a alphabet) at(i int) rune {
	for _, r := range a {
		if n := int(r.last-r.first) + 1; i >= n {
			i -= n
			continue
		}
		return r.first + rune(i)
	}
	return a[len(a)-1].last
}

func (a alphabet) upTo(letter rune) alphabet {
	var out alphabet
	for _, r := range a {
		if r.last = min(r.last, letter); r.first <= r.last {
			out = append(out, r)
		}
	}
	return out
}

// isWord says whether a letter is one that keys vary in: no separator.
func isWord(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= utf8.RuneSelf
}

// varies says whether the word branches behind a level, in letters of the same kind.
func (s *shape) varies(i int) bool {
	var own kinds
	letter, _ := utf8.DecodeRuneInString(s.last[s.levels[i].at:])
	own.add(letter)
	for _, l := range s.levels[i+1:] {
		letter, _ := utf8.DecodeRuneInString(s.last[l.at:])
		if !isWord(letter) {
			break
		}
		var k kinds
		k.add(letter)
		if l.branches > 1 && (own.lower && k.lower || own.upper && k.upper || len(own.others) > 0 && len(k.others) > 0) {
			return true
		}
	}
	return false
}

// kinds returns what letters may stand at a level, as far as was seen: what stands
// there, and if the rest of the word has letters and digits in the same places, as hex
// has, what stands in those.
func (s *shape) kinds(i int) kinds {
	at := s.levels[i].at
	begin := at
	for begin > s.skip {
		r, size := utf8.DecodeLastRuneInString(s.last[:begin])
		if !isWord(r) {
			break
		}
		begin -= size
	}
	var word kinds
	var places []kinds // from the level on
	offset := utf8.RuneCountInString(s.last[begin:at])
	for _, key := range s.recent {
		if !strings.HasPrefix(key, s.last[:begin]) {
			continue
		}
		k := -offset
		for _, r := range key[begin:] {
			if !isWord(r) {
				break
			}
			word.add(r)
			if k >= 0 {
				if k == len(places) {
					places = append(places, kinds{})
				}
				places[k].add(r)
			}
			k++
		}
	}
	var out kinds
	letter, _ := utf8.DecodeRuneInString(s.last[at:])
	out.add(letter)
	for k := range places {
		if k == 0 || places[k].mixed() || len(out.others) > 0 {
			out.join(&places[k])
		}
	}
	if word.hex() {
		out.join(&word)
	}
	return out
}

// kinds are what was seen of a word.
type kinds struct {
	digits, lower, upper  bool
	beyondF, beyondUpperF bool
	punctuation           bool
	others                []rune // beyond ASCII, in order
}

const (
	maxOthers = 4096
	// block is up to where letters beyond ASCII may go on behind those seen.
	block = 64
)

func (k *kinds) add(r rune) {
	switch {
	case r >= '0' && r <= '9':
		k.digits = true
	case r >= 'a' && r <= 'z':
		k.lower, k.beyondF = true, k.beyondF || r > 'f'
	case r >= 'A' && r <= 'Z':
		k.upper, k.beyondUpperF = true, k.beyondUpperF || r > 'F'
	case r < utf8.RuneSelf:
		k.punctuation = true
	default:
		if i, ok := slices.BinarySearch(k.others, r); !ok && len(k.others) < maxOthers {
			k.others = slices.Insert(k.others, i, r)
		}
	}
}

// hex says whether there are digits and letters up to F only.
func (k *kinds) hex() bool {
	return k.digits && (k.lower || k.upper) && !k.beyondF && !k.beyondUpperF && len(k.others) == 0
}

// mixed says whether there are digits and letters.
func (k *kinds) mixed() bool { return k.digits && (k.lower || k.upper || len(k.others) > 0) }

// join adds what another has.
func (k *kinds) join(o *kinds) {
	k.digits, k.lower, k.upper = k.digits || o.digits, k.lower || o.lower, k.upper || o.upper
	k.beyondF, k.beyondUpperF = k.beyondF || o.beyondF, k.beyondUpperF || o.beyondUpperF
	k.punctuation = k.punctuation || o.punctuation
	for _, r := range o.others {
		k.add(r)
	}
}

// letters returns those that may be above one: the kinds that were seen, made whole,
// and of the many beyond ASCII those that were seen, and some.
func (k *kinds) letters(above rune) alphabet {
	var out alphabet
	add := func(first, last rune) {
		if first = max(first, above+1); first <= last {
			out = append(out, letterRun{first, last})
		}
	}
	if k.punctuation {
		add(' ', '~')
	} else {
		if k.digits {
			add('0', '9')
		}
		if k.upper {
			add('A', pick(k.beyondUpperF || !k.digits, 'Z', 'F'))
		}
		if k.lower {
			add('a', pick(k.beyondF || !k.digits, 'z', 'f'))
		}
	}
	for _, r := range k.others {
		add(r, r)
	}
	if n := len(k.others); n > 0 && k.others[n-1] == above {
		add(above+1, above|(block-1)-2) // the last two may be no letters
	}
	return out
}

func pick(c bool, a, b rune) rune {
	if c {
		return a
	}
	return b
}
