package config

import _ "embed"

//go:embed example.yaml
var example string

// Example is an annotated configuration file with every key, accepted by
// [Load] as it is.
func Example() string { return example }
