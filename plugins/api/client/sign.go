package client

import (
	"strings"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// unescaped makes the signer take the path as it is sent, as S3 does.
func unescaped(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }

// escapeKey escapes a key for a path as SigV4 wants it: all but A-Z, a-z, 0-9,
// '-', '.', '_', '~' and '/'.
func escapeKey(key string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(key) {
		c := key[i]
		plain := c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' ||
			c == '-' || c == '.' || c == '_' || c == '~' || c == '/'
		if plain {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}

// objectPath is the S3 path of a key.
func objectPath(alias, key string) string { return "/" + escapeKey(alias) + "/" + escapeKey(key) }
