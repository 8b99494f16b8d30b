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
	letters alphabet // that may follow
	open    bool
	counts  bool    // the word has digits
	each    float64 // keys of a branch
}

func (p *place) left() float64 { return p.each * float64(p.letters.count()) }

// places returns the levels at which there may be more keys up to the bound, the
// shallowest first.
func (s *shape) places(bound string) []place {
	var out []place
	room := -1.0 // how many keys there may yet be below, as shallower levels say
	common := commonPrefix(s.last, bound)
	for i := range s.levels {
		l := &s.levels[i]
		if bound != "" && l.at < common {
			continue
		}
		letter, _ := utf8.DecodeRuneInString(s.last[l.at:])
		below := l.keys
		if i+1 < len(s.levels) {
			below = s.levels[i+1].keys
		}
		k := s.kinds(i)
		p := place{level: *l, letters: k.letters(letter), counts: k.digits || s.varies(i)}
		if bound != "" && l.at == common && len(bound) > l.at {
			top, _ := utf8.DecodeRuneInString(bound[l.at:])
			p.letters = p.letters.upTo(top)
		}
		switch {
		case l.branches > 1:
			p.each = float64(l.keys-below) / float64(l.branches-1)
			room = 2*p.each - float64(below)
			if room < 0 {
				room = -1
			}
		case l.keys < s.few() || room >= 0 || !isWord(letter):
			continue
		default:
			p.open = true
		}
		if p.letters.count() > 0 {
			out = append(out, p)
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

// guess is a key in the middle of what is left.
type guess struct {
	key string
	// at is the level that it is about; of one behind which something was found,
	// where that differs from the last key.
	at   int
	open bool
	// counts: the level is of a word that counts. fine: it is the right one.
	counts, fine bool
}

// guess returns a key that about half of what is left is above of, or false if too
// little is. Nothing is above the bound, if it is not "". best, if not nil, is a
// key with something above it: then only what may be better is returned.
func (s *shape) guess(bound string, best *guess) (guess, bool) {
	places := s.places(bound)
	if g, ok := s.openGuess(places, best, true); ok {
		return g, true
	}
	if best != nil && best.counts {
		return s.refined(places, best)
	}
	total := 0.0
	for i := range places {
		if !places[i].open {
			total += places[i].left()
		}
	}
	if best != nil || total < float64(littlePages*s.size) {
		return s.openGuess(places, best, false)
	}
	sum := 0.0
	for i := range slices.Backward(places) {
		p := &places[i]
		if p.open || p.left() == 0 || sum+p.left() < total/2 {
			sum += p.left()
			continue
		}
		letter, _ := utf8.DecodeRuneInString(s.last[p.at:])
		if k := int((total/2 - sum) / p.each); k > 0 {
			letter = p.letters.at(min(k, p.letters.count()) - 1)
		}
		return guess{key: s.last[:p.at] + string(letter) + above, at: p.at}, true
	}
	return guess{}, false
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
	g := guess{at: p.at, open: true, counts: counts}
	letter, _ := utf8.DecodeRuneInString(s.last[p.at:])
	if k == len(open)-1 && best == nil && letter != '0' {
		letter, g.fine = p.letters.at((p.letters.count()-1)/2), true
	}
	g.key = s.last[:p.at] + string(letter) + above
	return g, true
}

// refined looks once for a place further on at the level of the best one.
func (s *shape) refined(places []place, best *guess) (guess, bool) {
	for i := range places {
		if p := &places[i]; p.at == best.at && p.open && !best.fine && p.letters.count() > 2 {
			letter := p.letters.at(p.letters.count() / 3)
			return guess{key: s.last[:p.at] + string(letter) + above, at: p.at, open: true, counts: true, fine: true}, true
		}
	}
	return guess{}, false
}

// left is about how many keys are left up to the bound.
func (s *shape) left(bound string) int64 {
	total := 0.0
	for _, p := range s.places(bound) {
		if p.open {
			return int64(muchPages * s.size)
		}
		total += p.left()
	}
	return int64(min(total, 1e15))
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
