package s3gateway

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

const (
	xmlHeader    = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"
	xmlNamespace = ` xmlns="http://s3.amazonaws.com/doc/2006-03-01/"`
	xmlTime      = "2006-01-02T15:04:05.000Z"
)

// document is an XML answer under construction. It is written piece by piece,
// without reflection.
type document struct {
	b []byte
	// url says that names of keys are percent-encoded (encoding-type=url).
	url bool
}

// newDocument begins a document with its root element.
func newDocument(root string, namespace bool) *document {
	x := &document{b: make([]byte, 0, 512)}
	x.b = append(append(append(x.b, xmlHeader...), '<'), root...)
	if namespace {
		x.b = append(x.b, xmlNamespace...)
	}
	x.b = append(x.b, '>')
	return x
}

// end closes the root element and returns the document.
func (x *document) end(root string) []byte {
	x.close(root)
	return x.b
}

func (x *document) open(name string) { x.b = append(append(append(x.b, '<'), name...), '>') }

func (x *document) close(name string) { x.b = append(append(append(x.b, '<', '/'), name...), '>') }

// text writes an element with text.
func (x *document) text(name, value string) {
	x.open(name)
	x.b = appendText(x.b, value)
	x.close(name)
}

// name writes an element with the name of a key or a part of one.
func (x *document) name(name, value string) {
	x.open(name)
	switch {
	case !x.url:
		x.b = appendText(x.b, value)
	case value != "":
		x.b = sigv4.AppendPath(x.b, value)
	}
	x.close(name)
}

func (x *document) number(name string, n int64) {
	x.open(name)
	x.b = strconv.AppendInt(x.b, n, 10)
	x.close(name)
}

func (x *document) flag(name string, v bool) {
	x.open(name)
	x.b = strconv.AppendBool(x.b, v)
	x.close(name)
}

func (x *document) time(name string, t time.Time) {
	x.open(name)
	x.b = t.UTC().AppendFormat(x.b, xmlTime)
	x.close(name)
}

// etag writes an ETag in its quotes.
func (x *document) etag(name, etag string) {
	x.open(name)
	x.b = append(x.b, "&quot;"...)
	x.b = appendText(x.b, etag)
	x.b = append(x.b, "&quot;"...)
	x.close(name)
}

// owner writes who owns everything here.
func (x *document) owner(name string) {
	x.open(name)
	x.text("ID", ownerID)
	x.text("DisplayName", ownerID)
	x.close(name)
}

// ownerID is the one owner: access keys have no accounts.
const ownerID = "shoal"

// appendText appends character data. Characters that XML 1.0 cannot carry,
// which keys may contain, become references such as "&#x1;", as S3 writes
// them: a strict reader refuses these, none takes them for another name.
func appendText(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == 0xfffe || r == 0xffff {
				b = appendReference(b, r)
			} else {
				b = append(b, s[i:i+n]...)
			}
			i += n
			continue
		}
		i++
		switch {
		case c == '&':
			b = append(b, "&amp;"...)
		case c == '<':
			b = append(b, "&lt;"...)
		case c == '>':
			b = append(b, "&gt;"...)
		case c == '"':
			b = append(b, "&quot;"...)
		case c < ' ':
			b = appendReference(b, rune(c))
		default:
			b = append(b, c)
		}
	}
	return b
}

func appendReference(b []byte, r rune) []byte {
	b = append(b, "&#x"...)
	b = strconv.AppendInt(b, int64(r), 16)
	return append(b, ';')
}
