package s3gateway

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// Limits of XML bodies in bytes: 1,000 keys with every byte escaped, 10,000
// parts with checksums, and what the rest may need.
const (
	maxDeleteDocument   = 8 << 20
	maxCompleteDocument = 4 << 20
	maxSmallDocument    = 64 << 10

	maxDelete = 1000
)

// readDocument reads an XML body of at most limit bytes and verifies it.
func (q *request) readDocument(limit int64) ([]byte, error) {
	var o core.PutOptions
	if err := q.openBody(&o); err != nil {
		return nil, err
	}
	doc, err := q.readBody(o.Size, limit)
	if err != nil {
		return nil, err
	}
	return doc, verifyDocument(doc, o)
}

func (q *request) readBody(size, limit int64) ([]byte, error) {
	if size > limit {
		return nil, bad("MaxMessageLengthExceeded", "Your request was too big.", detail("MaxMessageLengthBytes", limit))
	}
	doc := make([]byte, 0, size+1) // one more to see the end
	buf := bytes.NewBuffer(doc)
	_, err := buf.ReadFrom(q.body)
	return buf.Bytes(), err
}

// walk calls f for each element below the root, which must have the name. f
// consumes the element.
func walk(doc []byte, root string, f func(d *xml.Decoder, e xml.StartElement) error) error {
	d := xml.NewDecoder(bytes.NewReader(doc))
	inside := false
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) && !inside {
			return errMalformedXML("there is no element " + root)
		}
		if err != nil {
			return errMalformedXML(err.Error())
		}
		switch e := t.(type) {
		case xml.StartElement:
			if !inside {
				if e.Name.Local != root {
					return errMalformedXML("the root is not " + root)
				}
				inside = true
				continue
			}
			if err := f(d, e); err != nil {
				return err
			}
		case xml.EndElement:
			return endOfDocument(d)
		}
	}
}

// endOfDocument refuses what follows the root.
func endOfDocument(d *xml.Decoder) error {
	for {
		switch t, err := d.Token(); t := t.(type) {
		case nil:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return errMalformedXML(err.Error())
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return errMalformedXML("there is text behind the root")
			}
		case xml.StartElement:
			return errMalformedXML("there is a second root")
		}
	}
}

// fields calls f with the name and text of each element inside the one that
// was just opened. Elements within them are skipped.
func fields(d *xml.Decoder, f func(name, text string) error) error {
	for {
		t, err := d.Token()
		if err != nil {
			return errMalformedXML(err.Error())
		}
		switch e := t.(type) {
		case xml.StartElement:
			text, err := textOf(d)
			if err != nil {
				return err
			}
			if err := f(e.Name.Local, text); err != nil {
				return err
			}
		case xml.EndElement:
			return nil
		}
	}
}

// textOf returns the text of the element that was just opened, and consumes it.
func textOf(d *xml.Decoder) (string, error) {
	var text []byte
	for {
		t, err := d.Token()
		if err != nil {
			return "", errMalformedXML(err.Error())
		}
		switch e := t.(type) {
		case xml.CharData:
			text = append(text, e...)
		case xml.StartElement:
			if err := d.Skip(); err != nil {
				return "", errMalformedXML(err.Error())
			}
		case xml.EndElement:
			return string(text), nil
		}
	}
}

// parseLocation reads CreateBucketConfiguration.
func parseLocation(doc []byte) (place string, err error) {
	err = walk(doc, "CreateBucketConfiguration", func(d *xml.Decoder, e xml.StartElement) (err error) {
		switch e.Name.Local {
		case "LocationConstraint":
			place, err = textOf(d)
			return err
		case "Location", "Bucket":
			return errNotImplemented("directory buckets")
		case "Tags":
			return errNotImplemented("tags of buckets")
		}
		return skip(d)
	})
	return strings.TrimSpace(place), err
}

func skip(d *xml.Decoder) error {
	if err := d.Skip(); err != nil {
		return errMalformedXML(err.Error())
	}
	return nil
}

// deleteItem is one object of DeleteObjects.
type deleteItem struct{ key, version, etag string }

type deleteDocument struct {
	quiet   bool
	objects []deleteItem
}

// parseDelete reads Delete.
func parseDelete(doc []byte) (out deleteDocument, err error) {
	err = walk(doc, "Delete", func(d *xml.Decoder, e xml.StartElement) error {
		switch e.Name.Local {
		case "Quiet":
			text, err := textOf(d)
			out.quiet = strings.EqualFold(strings.TrimSpace(text), "true")
			return err
		case "Object":
		default:
			return skip(d)
		}
		if len(out.objects) == maxDelete {
			return errMalformedXML("there are more than 1000 objects")
		}
		var o deleteItem
		err := fields(d, func(name, text string) error {
			switch name {
			case "Key":
				o.key = text
			case "VersionId":
				o.version = strings.TrimSpace(text)
			case "ETag":
				o.etag = strings.TrimSpace(text)
			case "LastModifiedTime", "Size":
				return errNotImplemented("removal conditions on " + name)
			}
			return nil
		})
		out.objects = append(out.objects, o)
		return err
	})
	if err == nil && len(out.objects) == 0 {
		err = errMalformedXML("there are no objects")
	}
	return out, err
}

// parseComplete reads CompleteMultipartUpload and checks the order of parts.
func parseComplete(doc []byte) (parts []core.CompletePart, err error) {
	err = walk(doc, "CompleteMultipartUpload", func(d *xml.Decoder, e xml.StartElement) error {
		if e.Name.Local != "Part" {
			return skip(d)
		}
		if len(parts) == core.MaxParts {
			return errMalformedXML("there are more than 10000 parts")
		}
		var p core.CompletePart
		err := fields(d, func(name, text string) error { return setPart(&p, name, strings.TrimSpace(text)) })
		switch {
		case err != nil:
			return err
		case p.Number < 1 || p.Number > core.MaxParts || p.ETag == "":
			return errMalformedXML("a part has no number from 1 to 10000 or no ETag")
		case len(parts) > 0 && p.Number <= parts[len(parts)-1].Number:
			return bad("InvalidPartOrder", "The list of parts was not in ascending order. The parts list must be specified in order by part number.")
		}
		parts = append(parts, p)
		return nil
	})
	if err == nil && len(parts) == 0 {
		err = errMalformedXML("there are no parts")
	}
	return parts, err
}

func setPart(p *core.CompletePart, name, text string) error {
	switch name {
	case "PartNumber":
		n, err := strconv.Atoi(text)
		if err != nil {
			return errMalformedXML("a part's number is none")
		}
		p.Number = n
		return nil
	case "ETag":
		p.ETag = unquote(text)
		return nil
	}
	for _, a := range checksums() {
		if a.element == name && text != "" {
			if !a.valid(text) {
				return errInvalidRequest("Value for " + name + " is invalid.")
			}
			p.Checksum = core.Checksum{Algorithm: a.name, Value: text}
			return nil
		}
	}
	if strings.HasPrefix(name, "Checksum") && text != "" {
		return errNotImplemented("the checksum " + name)
	}
	return nil
}

// parseTags reads Tagging.
func parseTags(doc []byte) (map[string]string, error) {
	tags := map[string]string{}
	err := walk(doc, "Tagging", func(d *xml.Decoder, e xml.StartElement) error {
		if e.Name.Local != "TagSet" {
			return skip(d)
		}
		return parseTagSet(d, tags)
	})
	if err != nil {
		return nil, err
	}
	return tags, checkTags(tags)
}

// parseTagSet reads the Tag elements of the TagSet that was just opened.
func parseTagSet(d *xml.Decoder, tags map[string]string) error {
	for {
		t, err := d.Token()
		if err != nil {
			return errMalformedXML(err.Error())
		}
		switch e := t.(type) {
		case xml.EndElement:
			return nil
		case xml.StartElement:
			if e.Name.Local != "Tag" {
				return errMalformedXML("a TagSet holds something else than a Tag")
			}
			var key, value string
			if err := fields(d, func(name, text string) error {
				switch name {
				case "Key":
					key = text
				case "Value":
					value = text
				}
				return nil
			}); err != nil {
				return err
			}
			if _, twice := tags[key]; twice {
				return bad("InvalidTag", "Cannot provide multiple Tags with the same key")
			}
			tags[key] = value
		}
	}
}
