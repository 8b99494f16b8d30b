package core

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Validate says what is wrong with the settings for a bucket of p.
func (s RemoteSettings) Validate(p Provider) error {
	only := func(name string, set bool, of ...Provider) error {
		if !set || slices.Contains(of, p) {
			return nil
		}
		return fmt.Errorf("%s has no meaning for buckets of %s://: %w", name, p, ErrInvalid)
	}
	for _, err := range []error{
		only("account", s.Account != "", S3, GCS),
		only("endpoint", s.Endpoint != "", S3, GCS),
		only("region", s.Region != "", S3),
		only("profile", s.Profile != "", S3),
		only("name", s.Name != "", S3, GCS),
		only("anonymous", s.Anonymous, S3, GCS),
		only("path_style", s.PathStyle, S3),
		only("conditions", s.Conditions, S3, GCS),
	} {
		if err != nil {
			return err
		}
	}
	if s.Account != "" && badRootName(s.Account) != "" {
		return fmt.Errorf("account %q: %s: %w", s.Account, badRootName(s.Account), ErrInvalid)
	}
	if err := validEndpoint(s.Endpoint); err != nil {
		return err
	}
	if len(s.Region) > 63 || strings.Trim(s.Region, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("region %q: want a name such as eu-central-1: %w", s.Region, ErrInvalid)
	}
	if len(s.Profile) > 128 || strings.ContainsFunc(s.Profile, func(c rune) bool { return c < ' ' || c == 0x7f || c == '[' || c == ']' }) {
		return fmt.Errorf("profile %q: want up to 128 characters, no control characters and brackets: %w", s.Profile, ErrInvalid)
	}
	if s.Anonymous && s.Profile != "" {
		return fmt.Errorf("anonymous and profile exclude each other: %w", ErrInvalid)
	}
	if s.Name != "" {
		if err := (BucketName{Provider: p, Name: s.Name}).Validate(); err != nil {
			return fmt.Errorf("name: %w", err)
		}
	}
	return nil
}

func validEndpoint(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		// What stands before an @ may be a password: it is not repeated.
		return fmt.Errorf("endpoint: want http://host[:port] or https://, without user, query and fragment: %w", ErrInvalid)
	}
	return nil
}
