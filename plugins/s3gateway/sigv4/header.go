package sigv4

import "strings"

// claim is what a request says about its signature, before anything of it is
// believed. Its strings are parts of the request's.
type claim struct {
	accessKey     string
	date          string // YYYYMMDD of the scope
	region        string
	service       string
	scope         string // date/region/service/aws4_request
	signedHeaders string
	signature     string
}

// maxSignedHeaders bounds the work for a request that is not yet believed.
const maxSignedHeaders = 1024

// parseHeader reads the value of an Authorization header:
//
//	AWS4-HMAC-SHA256 Credential=AK/20130524/us-east-1/s3/aws4_request,SignedHeaders=host;x-amz-date,Signature=hex
//
// Components may be in any order, with white space around the commas.
func parseHeader(v string) (claim, error) {
	var c claim
	scheme, rest, _ := strings.Cut(strings.TrimSpace(v), " ")
	switch {
	case scheme == Algorithm:
	case scheme == "AWS" || strings.HasPrefix(scheme, "AWS4-"):
		return c, malformed("InvalidRequest", "The authorization mechanism you have provided is not supported. Please use "+Algorithm+".")
	default:
		return c, malformed("InvalidArgument", "Unsupported Authorization Type", Detail{"ArgumentName", "Authorization"}, Detail{"ArgumentValue", scheme})
	}
	var credential string
	for rest != "" {
		var field string
		field, rest, _ = strings.Cut(rest, ",")
		name, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		var to *string
		switch name {
		case "Credential":
			to = &credential
		case "SignedHeaders":
			to = &c.signedHeaders
		case "Signature":
			to = &c.signature
		}
		if !ok || to == nil || *to != "" {
			return c, malformedHeader("the component \"" + field + "\" is not expected or repeated.")
		}
		*to = value
	}
	switch {
	case credential == "":
		return c, malformedHeader("missing Credential.")
	case c.signedHeaders == "":
		return c, malformedHeader("missing SignedHeaders.")
	case c.signature == "":
		return c, malformedHeader("missing Signature.")
	}
	if why := c.setCredential(credential); why != "" {
		return c, malformedHeader(why)
	}
	if why := c.check(); why != "" {
		return c, malformedHeader(why)
	}
	return c, nil
}

// setCredential splits AK/date/region/service/aws4_request. The access key may
// itself contain slashes. It returns why the credential is malformed.
func (c *claim) setCredential(v string) (why string) {
	cut := func(s string) (before, last string) {
		i := strings.LastIndexByte(s, '/')
		if i < 0 {
			return "", s
		}
		return s[:i], s[i+1:]
	}
	rest, end := cut(v)
	rest, c.service = cut(rest)
	rest, c.region = cut(rest)
	c.accessKey, c.date = cut(rest)
	if c.accessKey == "" || end != scopeEnd {
		return "the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\"."
	}
	c.scope = v[len(c.accessKey)+1:]
	if len(c.date) != 8 || strings.Trim(c.date, "0123456789") != "" {
		return "incorrect date format \"" + c.date + "\". This date in the credential must be in the format \"yyyyMMdd\"."
	}
	return ""
}

// check looks at the form of signature and header list.
func (c *claim) check() (why string) {
	if !isHash(c.signature) {
		return "the Signature must be 64 hex digits."
	}
	if strings.Count(c.signedHeaders, ";") >= maxSignedHeaders {
		return "too many SignedHeaders."
	}
	for i := range len(c.signedHeaders) {
		if b := c.signedHeaders[i]; b <= ' ' || b >= 0x7f || b >= 'A' && b <= 'Z' {
			return "SignedHeaders must be a semicolon separated list of header names in lower case."
		}
	}
	return ""
}

// signs says whether a header of that name, in any case, is signed.
func (c *claim) signs(name string) bool {
	for list := c.signedHeaders; list != ""; {
		var h string
		h, list, _ = strings.Cut(list, ";")
		if len(h) == len(name) && strings.EqualFold(h, name) {
			return true
		}
	}
	return false
}
